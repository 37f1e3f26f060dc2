import { z } from "zod";

/** `POST /write`: the whole text of the file. */
export const writeBody = z.object({ content: z.string() });

/** `POST /move`: paths as everywhere, spelled as the client likes. */
export const moveBody = z.object({ from: z.string().min(1), to: z.string().min(1) });
