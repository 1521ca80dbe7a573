import { lazy, Suspense, useState } from "react";
import { Button, Menu, MenuItem, MenuTrigger, Popover } from "react-aria-components";
import { FORMATS, formatOf } from "../lib/exportFormat";
import type { Table } from "../lib/filters";
import { Icon } from "./Icon";

const Download = lazy(() => import("./Download"));
const ExportYaml = lazy(() => import("./ExportYaml"));

/** What the table shows, as a file: at once, or as a ScriptExport. */
export function ExportMenu({ table, params }: { table: Table; params: Record<string, string> }) {
  const [doing, setDoing] = useState<string | null>(null);
  const close = () => setDoing(null);
  return (
    <>
      <MenuTrigger>
        <Button className="button">
          <Icon name="download" />
          Export
        </Button>
        <Popover className="popover" placement="bottom end">
          <Menu className="menu" onAction={(key) => setDoing(String(key))}>
            {FORMATS.map((format) => (
              <MenuItem className="menu-item" id={format.id} key={format.id}>
                Download {format.name}
              </MenuItem>
            ))}
            <MenuItem className="menu-item" id="yaml">
              Save as ScriptExport…
            </MenuItem>
          </Menu>
        </Popover>
      </MenuTrigger>
      <Suspense>
        {doing && doing !== "yaml" && (
          <Download key={doing} table={table} params={params} format={formatOf(doing)} onClose={close} />
        )}
        {doing === "yaml" && <ExportYaml table={table} onClose={close} />}
      </Suspense>
    </>
  );
}
