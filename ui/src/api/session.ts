import { queryOptions } from "@tanstack/react-query";
import { ApiFailure, ask, get } from "./client";

export interface Me {
  username: string;
  groups: string[];
}

/** Whether this browser signed in with a token, so that there is a session to end. The token itself is out of reach. */
const SIGNED_IN = "scriptscope.signed-in";

/** Who the operator takes the reader for; none where it asks for a token. */
export const meQuery = queryOptions({
  queryKey: ["whoami"],
  queryFn: async ({ signal }): Promise<Me | null> => {
    try {
      return await get<Me>("/whoami", signal);
    } catch (error) {
      if (error instanceof ApiFailure && error.status === 401) return null;
      throw error;
    }
  },
  staleTime: 60_000,
});

export async function signIn(token: string): Promise<void> {
  await ask("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  localStorage.setItem(SIGNED_IN, "yes");
}

export async function signOut(): Promise<void> {
  await ask("/session", { method: "DELETE" });
  localStorage.removeItem(SIGNED_IN);
}

export function hasSession(): boolean {
  return localStorage.getItem(SIGNED_IN) !== null;
}
