import { lazy, Suspense, useState } from "react";
import { Button, Menu, MenuItem, MenuTrigger, Popover } from "react-aria-components";
import type { Table } from "../lib/filters";
import { Icon } from "./Icon";

const Download = lazy(() => import("./Download"));
const ExportYaml = lazy(() => import("./ExportYaml"));

/** What the table shows, as a file: at once, or as a ScriptExport. */
export function ExportMenu({ table, params }: { table: Table; params: Record<string, string> }) {
  const [doing, setDoing] = useState<"csv" | "yaml" | null>(null);
  const close = () => setDoing(null);
  return (
    <>
      <MenuTrigger>
        <Button className="button">
          <Icon name="download" />
          Export
        </Button>
        <Popover className="popover" placement="bottom end">
          <Menu className="menu" onAction={(key) => setDoing(key === "csv" ? "csv" : "yaml")}>
            <MenuItem className="menu-item" id="csv">
              Download CSV
            </MenuItem>
            <MenuItem className="menu-item" id="yaml">
              Save as ScriptExport…
            </MenuItem>
          </Menu>
        </Popover>
      </MenuTrigger>
      <Suspense>
        {doing === "csv" && <Download table={table} params={params} onClose={close} />}
        {doing === "yaml" && <ExportYaml table={table} onClose={close} />}
      </Suspense>
    </>
  );
}
