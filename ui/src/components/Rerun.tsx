import { useMutation } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Button, Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";
import { ask, scriptPath } from "../api/client";
import type { RunDetail } from "../api/types";
import { usePlace } from "../routes/script";
import { Icon } from "./Icon";
import { Failure } from "./States";

/** Asks, and calls the script again with what went into a run. */
export default function Rerun({ run, onClose }: { run: RunDetail; onClose: () => void }) {
  const { script, search } = usePlace();
  const call = useMutation({
    mutationFn: async () => {
      const path = scriptPath(script, `/runs/${encodeURIComponent(run.runId)}/rerun`);
      const answer = await ask(path, { method: "POST" });
      return (await answer.json()) as { runId: string };
    },
  });
  return (
    <ModalOverlay className="overlay" isOpen onOpenChange={(open) => !open && onClose()} isDismissable>
      <Modal className="modal">
        <Dialog className="dialog">
          <div className="dialog-head">
            <Heading slot="title">Run again with the same input</Heading>
            <Button className="button-quiet" aria-label="Close" onPress={onClose}>
              <Icon name="cross" />
            </Button>
          </div>
          {call.data ? (
            <>
              <p role="status">
                The call was accepted as the run <code>{call.data.runId}</code>. It appears in the table
                within seconds.
              </p>
              <div className="dialog-tools">
                <Link
                  className="button button-main"
                  to="/scripts/$namespace/$name/runs/$runId"
                  params={{ ...script, runId: call.data.runId }}
                  search={search as never}
                  onClick={onClose}
                >
                  Open the new run
                </Link>
              </div>
            </>
          ) : (
            <>
              <p>
                This calls <code>{run.function}</code> of {script.name}, as it is deployed now, with the input
                of <code>{run.runId}</code>. Whatever the function does, it does once more. The new run has
                you as its source, and source type Test.
              </p>
              {call.isError && <Failure error={call.error} />}
              <div className="dialog-tools">
                <Button
                  className="button button-main"
                  isDisabled={call.isPending}
                  onPress={() => call.mutate()}
                >
                  {call.isPending ? "Calling…" : call.isError ? "Try again" : "Run again"}
                </Button>
                <Button className="button" onPress={onClose}>
                  Cancel
                </Button>
              </div>
            </>
          )}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
