import { useQueryClient } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { useState } from "react";
import {
  Button,
  Menu,
  Header as MenuHeader,
  MenuItem,
  MenuSection,
  MenuTrigger,
  Popover,
} from "react-aria-components";
import { hasSession, type Me, meQuery, signOut } from "../api/session";
import { useKeys } from "../lib/keys";
import { chooseTheme, chosenTheme, type Theme } from "../lib/theme";
import { Icon } from "./Icon";
import { Shortcuts } from "./Shortcuts";

const THEMES: [Theme, string][] = [
  ["system", "As the system"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export function Header({ me }: { me: Me | null }) {
  const { namespace, name } = useParams({ strict: false });
  const [help, setHelp] = useState(false);
  useKeys({
    "?": () => setHelp(true),
    "/": () => document.querySelector<HTMLInputElement>("[data-search]")?.focus(),
  });
  return (
    <header className="top">
      <Link to="/scripts" className="brand">
        <img src="/favicon.svg" alt="" width="22" height="22" />
        ScriptScope
      </Link>
      <nav aria-label="Place" className="crumbs">
        {me && name && namespace && (
          <ol>
            <li>
              <Link to="/scripts">Scripts</Link>
            </li>
            <li>
              <Link to="/scripts" search={{ namespace }}>
                {namespace}
              </Link>
            </li>
            <li aria-current="page">{name}</li>
          </ol>
        )}
      </nav>
      <Button className="button-quiet" aria-label="Keyboard shortcuts" onPress={() => setHelp(true)}>
        <kbd>?</kbd>
      </Button>
      <UserMenu me={me} />
      <Shortcuts isOpen={help} onOpenChange={setHelp} />
    </header>
  );
}

function UserMenu({ me }: { me: Me | null }) {
  const client = useQueryClient();
  const [theme, setTheme] = useState(chosenTheme);
  const leave = async () => {
    await signOut();
    client.setQueryData(meQuery.queryKey, null);
    client.removeQueries({ predicate: (query) => query.queryKey[0] !== meQuery.queryKey[0] });
  };
  return (
    <MenuTrigger>
      <Button className="button-quiet" aria-label="You and the look of the page">
        <Icon name="user" />
      </Button>
      <Popover className="popover" placement="bottom end">
        <Menu
          className="menu"
          onAction={(key) => {
            if (key === "sign-out") void leave();
          }}
        >
          <MenuSection
            selectionMode="single"
            disallowEmptySelection
            selectedKeys={[theme]}
            onSelectionChange={(keys) => {
              const [chosen] = [...keys] as Theme[];
              if (!chosen) return;
              chooseTheme(chosen);
              setTheme(chosen);
            }}
          >
            <MenuHeader className="menu-header">Look</MenuHeader>
            {THEMES.map(([id, name]) => (
              <MenuItem className="menu-item" id={id} key={id}>
                {name}
              </MenuItem>
            ))}
          </MenuSection>
          {me && (
            <MenuSection>
              <MenuHeader className="menu-header menu-who">Signed in as {me.username}</MenuHeader>
              {hasSession() ? (
                <MenuItem className="menu-item" id="sign-out">
                  Sign out
                </MenuItem>
              ) : null}
            </MenuSection>
          )}
        </Menu>
      </Popover>
    </MenuTrigger>
  );
}
