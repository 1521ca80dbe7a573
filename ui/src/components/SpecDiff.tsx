import { useQuery } from "@tanstack/react-query";
import { deploymentQuery } from "../api/queries";
import { diffLines, specText } from "../lib/diff";
import { usePlace } from "../routes/script";
import { Failure, SkeletonRows } from "./States";

const SIGNS = { same: " ", added: "+", removed: "−" };

/** What made a version, beside what made the one before it. */
export function SpecDiff({ version, before }: { version: number; before: number | undefined }) {
  const { script } = usePlace();
  const after = useQuery(deploymentQuery(script, version));
  const earlier = useQuery({ ...deploymentQuery(script, before ?? 0), enabled: before !== undefined });
  const error = after.error ?? earlier.error;
  if (error) return <Failure error={error} />;
  if (!after.data || (before !== undefined && !earlier.data))
    return <SkeletonRows label="Loading the spec" rows={3} />;
  const text = specText(after.data.spec).trimStart();
  const lines = diffLines(before === undefined ? text : specText(earlier.data?.spec).trimStart(), text);
  return (
    <>
      <p className="soft">
        {before === undefined ? `What made version ${version}` : `From version ${before} to ${version}`}
      </p>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls */}
      <pre className="diff" tabIndex={0} role="region" aria-label="Changes of the spec">
        {lines.map((line, i) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: lines have no names
          <span className={`diff-${line.kind}`} key={i}>
            {SIGNS[line.kind]} {line.text}
            {"\n"}
          </span>
        ))}
      </pre>
    </>
  );
}
