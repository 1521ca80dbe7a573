import { Button, Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";
import { Icon } from "./Icon";

const KEYS: [string[], string][] = [
  [["/"], "To the search"],
  [["R"], "All Runs"],
  [["L"], "Logs"],
  [["E"], "Errors"],
  [["V"], "Versions"],
  [["F"], "Add a filter"],
  [["S"], "All Runs: the slowest first, or the newest"],
  [["T"], "Local time or UTC"],
  [["J", "↓", "→"], "In a record: the next, older run"],
  [["K", "↑", "←"], "In a record: the previous, newer run"],
  [["Esc"], "Close what is open"],
  [["?"], "This list"],
];

interface Props {
  isOpen: boolean;
  onOpenChange: (open: boolean) => void;
}

export function Shortcuts({ isOpen, onOpenChange }: Props) {
  return (
    <ModalOverlay className="overlay" isOpen={isOpen} onOpenChange={onOpenChange} isDismissable>
      <Modal className="modal">
        <Dialog className="dialog">
          {({ close }) => (
            <>
              <div className="dialog-head">
                <Heading slot="title">Keyboard shortcuts</Heading>
                <Button className="button-quiet" aria-label="Close" onPress={close}>
                  <Icon name="cross" />
                </Button>
              </div>
              <dl className="keys">
                {KEYS.map(([keys, what]) => (
                  <div key={what}>
                    <dt>
                      {keys.map((key) => (
                        <kbd key={key}>{key}</kbd>
                      ))}
                    </dt>
                    <dd>{what}</dd>
                  </div>
                ))}
              </dl>
            </>
          )}
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
