import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useEffect, useRef } from "react";
import { meQuery, signIn } from "../api/session";

export function SignIn() {
  const client = useQueryClient();
  const input = useRef<HTMLInputElement>(null);
  const signing = useMutation({
    mutationFn: signIn,
    onSuccess: async () => {
      // What an earlier reader saw is not for this one.
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== meQuery.queryKey[0] });
      await client.invalidateQueries({ queryKey: meQuery.queryKey });
    },
  });
  useEffect(() => input.current?.focus(), []);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const token = input.current?.value.trim() ?? "";
    if (token) signing.mutate(token);
  };
  return (
    <form className="sign-in" onSubmit={submit}>
      <h1>Sign in</h1>
      <p className="soft" id="sign-in-how">
        With a token of Kubernetes. You see the scripts whose runs and logs you may read.
      </p>
      <label htmlFor="token">Token</label>
      <input
        id="token"
        ref={input}
        type="password"
        autoComplete="off"
        spellCheck={false}
        required
        aria-describedby={signing.isError ? "sign-in-error sign-in-how" : "sign-in-how"}
        aria-invalid={signing.isError}
      />
      {signing.isError && (
        <p className="field-error" id="sign-in-error" role="alert">
          {signing.error.message}
        </p>
      )}
      <button className="button button-main" type="submit" disabled={signing.isPending}>
        Sign in
      </button>
      <p className="soft sign-in-help">
        A token of a service account: <code>kubectl create token NAME -n NAMESPACE</code>. Without one:{" "}
        <code>scriptscope dashboard</code>.
      </p>
    </form>
  );
}
