import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { Button } from "react-aria-components";
import { deploymentsQuery } from "../api/queries";
import type { DeploymentItem, VersionFigures } from "../api/types";
import { StatusBadge } from "../components/Badge";
import { CompareVersions } from "../components/CompareVersions";
import { SpecDiff } from "../components/SpecDiff";
import { Empty, Failure, SkeletonRows } from "../components/States";
import { Time } from "../components/Time";
import { count, duration, percent } from "../lib/format";
import { withFilter } from "../lib/search";
import { usePlace } from "./script";

export function VersionsTab() {
  const { script, detail } = usePlace();
  const deployments = useQuery(deploymentsQuery(script));
  const [open, setOpen] = useState<number | null>(null);
  if (deployments.isPending) return <SkeletonRows label="Loading the versions" rows={4} />;
  if (!deployments.data) {
    return <Failure error={deployments.error} onRetry={() => void deployments.refetch()} />;
  }
  const { items } = deployments.data;
  if (items.length === 0) {
    return (
      <Empty title="Never deployed">
        <p>
          The first version is made when <code>spec.desiredState</code> is <code>Deployed</code>.
        </p>
      </Empty>
    );
  }
  return (
    <>
      {items.length > 1 && <CompareVersions versions={items.map((one) => one.version)} />}
      <h2 className="section-title">Deployment history</h2>
      <ol className="versions">
        {items.map((one, i) => (
          <li key={one.version} className="version">
            <Version item={one} figures={detail?.byVersion.find((f) => f.version === one.version)} />
            <Button
              className="button"
              aria-expanded={open === one.version}
              isDisabled={!one.specKept}
              onPress={() => setOpen(open === one.version ? null : one.version)}
            >
              {one.specKept ? "What changed" : "Not kept"}
            </Button>
            {open === one.version && (
              <div className="version-diff">
                <SpecDiff
                  version={one.version}
                  before={items[i + 1]?.specKept ? items[i + 1]?.version : undefined}
                />
              </div>
            )}
          </li>
        ))}
      </ol>
    </>
  );
}

function Version({ item, figures }: { item: DeploymentItem; figures: VersionFigures | undefined }) {
  const { script } = usePlace();
  const search = withFilter(
    { range: "AllTime" },
    {
      match: "All",
      conditions: [{ column: "Deployment Version", operator: "Equals", values: [String(item.version)] }],
    },
  );
  return (
    <>
      <Link
        to="/scripts/$namespace/$name/runs"
        params={script}
        search={search as never}
        className="version-name num"
      >
        v{item.version}
      </Link>
      <div className="version-state">
        <StatusBadge status={item.state} />
        {item.reason && <p className="field-error">{item.reason}</p>}
      </div>
      <dl className="version-facts">
        <div>
          <dt>Deployed</dt>
          <dd>
            <Time at={item.deployedAt ?? item.startedAt} toMinute />
          </dd>
        </div>
        <div>
          <dt>By</dt>
          <dd>{item.changedBy ?? "not known"}</dd>
        </div>
        <div>
          <dt>Runs</dt>
          <dd className="num">{count(figures?.totalRuns)}</dd>
        </div>
        <div>
          <dt>Failure Rate</dt>
          <dd className="num">{percent(figures?.failureRateBasisPoints)}</dd>
        </div>
        <div>
          <dt>P90</dt>
          <dd className="num">{duration(figures?.p90Microseconds)}</dd>
        </div>
        <div>
          <dt>P99</dt>
          <dd className="num">{duration(figures?.p99Microseconds)}</dd>
        </div>
      </dl>
    </>
  );
}
