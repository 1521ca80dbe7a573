import { useState } from "react";
import { Button, Dialog, Heading, Modal, ModalOverlay } from "react-aria-components";
import { CSV, FORMATS, formatOf } from "../lib/exportFormat";
import { exportYaml } from "../lib/exportYaml";
import type { Table } from "../lib/filters";
import { filterOf, rangeOf, zoneOf } from "../lib/search";
import { usePlace } from "../routes/script";
import { Choice } from "./Choice";
import { Copy } from "./Copy";
import { Icon } from "./Icon";

export default function ExportYaml({ table, onClose }: { table: Table; onClose: () => void }) {
  const { script, search } = usePlace();
  const [format, setFormat] = useState(CSV);
  const wish = {
    script,
    table,
    range: rangeOf(search),
    zone: zoneOf(search),
    filter: filterOf(search, table),
    search: search.q ?? "",
    format,
  };
  const yaml = exportYaml(wish, new Date());
  return (
    <ModalOverlay className="overlay" isOpen onOpenChange={(open) => !open && onClose()} isDismissable>
      <Modal className="modal">
        <Dialog className="dialog">
          <div className="dialog-head">
            <Heading slot="title">Save as ScriptExport</Heading>
            <Button className="button-quiet" aria-label="Close" onPress={onClose}>
              <Icon name="cross" />
            </Button>
          </div>
          <p className="soft">
            The operator writes the file when this object exists: <code>kubectl apply -f export.yaml</code>
          </p>
          <div className="dialog-tools">
            <span aria-hidden="true">Format</span>
            <Choice
              label="Format"
              value={format.id}
              options={FORMATS.map(({ id, name }) => [id, name])}
              onChange={(id) => setFormat(formatOf(id))}
            />
          </div>
          <div className="code-block">
            {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls */}
            <pre tabIndex={0}>{yaml}</pre>
            <Copy text={yaml} label="Copy the YAML" />
          </div>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
