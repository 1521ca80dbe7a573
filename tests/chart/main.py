"""What the chart makes of its values, without a cluster."""

import copy
import functools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import schemas
import yaml
from shapes import REFUSED, SEVERAL, SHAPES, VALUES

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/scriptscope"
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}


def command(*arguments, stdin=None):
    done = subprocess.run([str(a) for a in arguments], input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def helm(verb, values, *more):
    return command("helm", verb, *more, CHART, "--values", "-", stdin=json.dumps(values))


def render(values):
    return render_json(json.dumps(values, sort_keys=True))


@functools.cache
def render_json(values):
    values = json.loads(values)
    code, out, errors = helm("template", values, "scriptscope", "--namespace", "system")
    assert code == 0, errors
    return out


def objects(text):
    return [one for one in yaml.safe_load_all(text) if one]


def merged(one, other):
    result = copy.deepcopy(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def setting(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def find(manifests, kind, name):
    found = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    return found[0] if len(found) == 1 else None


def pods(manifests):
    for one in manifests:
        if one["kind"] in ("Deployment", "DaemonSet"):
            yield one, one["spec"]["template"]


class Shapes(unittest.TestCase):
    """Each shape that is supported."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        schemas.make(Path(cls.folder.name))
        cls.texts = {name: render(values) for name, values in SHAPES.items()}
        cls.manifests = {name: objects(text) for name, text in cls.texts.items()}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def each(self):
        for name, manifests in self.manifests.items():
            with self.subTest(name):
                yield manifests

    def test_helm_finds_nothing_to_complain_of(self):
        for name, values in SHAPES.items():
            with self.subTest(name):
                code, out, errors = helm("lint", values, "--strict")
                self.assertEqual(code, 0, out + errors)

    def test_objects_are_as_the_api_has_them(self):
        where = self.folder.name + "/{{.ResourceKind}}{{.KindSuffix}}.json"
        for name, text in self.texts.items():
            with self.subTest(name):
                code, out, errors = command("kubeconform", "-strict", "-summary", "-schema-location", where, stdin=text)
                self.assertEqual(code, 0, out + errors)
                self.assertRegex(out, r"Invalid: 0, Errors: 0, Skipped: 0")

    def test_a_member_that_the_api_does_not_know_is_found(self):
        where = self.folder.name + "/{{.ResourceKind}}{{.KindSuffix}}.json"
        text = self.texts["defaults"].replace("enableServiceLinks", "enableServiceLink")
        code, out, _ = command("kubeconform", "-strict", "-schema-location", where, stdin=text)
        self.assertNotEqual(code, 0)
        self.assertIn("enableServiceLink", out)

    def test_no_object_is_there_twice_and_each_names_its_namespace(self):
        cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
        for manifests in self.each():
            names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in manifests]
            self.assertEqual(len(names), len(set(names)))
            for kind, namespace, name in names:
                self.assertEqual(namespace is None, kind in cluster_wide, (kind, name))

    def test_pods_are_restricted_but_for_the_agents_folder_and_user(self):
        for manifests in self.each():
            for owner, template in pods(manifests):
                spec = template["spec"]
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertNotIn("hostNetwork", spec)
                self.assertNotIn("hostPID", spec)
                for container in spec["containers"]:
                    self.assertEqual(container["securityContext"], RESTRICTED)
                on_host = [volume for volume in spec["volumes"] if "hostPath" in volume]
                if owner["kind"] == "DaemonSet":
                    self.assertEqual([volume["name"] for volume in on_host], ["logs"])
                    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
                    self.assertTrue(mounts["logs"]["readOnly"])
                    self.assertFalse(spec["automountServiceAccountToken"])
                else:
                    self.assertEqual(on_host, [])
                    self.assertTrue(spec["securityContext"]["runAsNonRoot"])

    def test_what_refers_to_something_finds_it(self):
        for manifests in self.each():
            templates = [template for _, template in pods(manifests)]
            for one in manifests:
                if one["kind"] == "Service":
                    wanted = one["spec"]["selector"].items()
                    chosen = [t for t in templates if wanted <= t["metadata"]["labels"].items()]
                    self.assertEqual(len(chosen), 1, one["metadata"]["name"])
                    ports = {port["name"] for port in chosen[0]["spec"]["containers"][0]["ports"]}
                    self.assertLessEqual({port["targetPort"] for port in one["spec"]["ports"]}, ports)
                if one["kind"].endswith("RoleBinding") and one["roleRef"]["name"].startswith("scriptscope"):
                    self.assertIsNotNone(find(manifests, one["roleRef"]["kind"], one["roleRef"]["name"]))
                if one["kind"] == "ServiceMonitor":
                    wanted = one["spec"]["selector"]["matchLabels"].items()
                    services = [s for s in manifests if s["kind"] == "Service" and wanted <= s["metadata"]["labels"].items()]
                    self.assertEqual([s["metadata"]["name"] for s in services], ["scriptscope-metrics"])
                if one["kind"] in ("NetworkPolicy", "PodDisruptionBudget") and one["metadata"]["name"] != "scriptscope-scripts":
                    spec = one["spec"]
                    wanted = (spec.get("podSelector") or spec["selector"])["matchLabels"].items()
                    chosen = [t for t in templates if wanted <= t["metadata"]["labels"].items()]
                    self.assertEqual(len(chosen), 1, one["metadata"]["name"])
            for template in templates:
                maps = [v["configMap"]["name"] for v in template["spec"]["volumes"] if "configMap" in v]
                self.assertEqual(maps, ["scriptscope-logging"])
                env = {e["name"]: e.get("value") for e in template["spec"]["containers"][0]["env"]}
                mounts = {m["name"]: m for m in template["spec"]["containers"][0]["volumeMounts"]}
                self.assertEqual(env["SCRIPTSCOPE_LOG_FROM"], mounts["logging"]["mountPath"] + "/level")
                self.assertNotIn("subPath", mounts["logging"], "which would never change")
                self.assertIsNotNone(find(manifests, "ConfigMap", maps[0]))
                self.assertIsNotNone(find(manifests, "ServiceAccount", template["spec"]["serviceAccountName"]))

    def test_another_log_level_restarts_nothing(self):
        before, after = (list(pods(objects(render({"log": {"level": level}})))) for level in ("info", "debug"))
        self.assertEqual(before, after)

    def test_two_operators_are_never_at_one_sqlite_file(self):
        for name, manifests in self.manifests.items():
            with self.subTest(name):
                operator = find(manifests, "Deployment", "scriptscope")
                env = {one["name"]: one for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
                sqlite = env["SCRIPTSCOPE_DATABASE_URL"].get("value", "").startswith("sqlite:")
                self.assertEqual("SCRIPTSCOPE_LEASE" in env, not sqlite)
                if sqlite:
                    self.assertEqual(operator["spec"]["strategy"], {"type": "Recreate"})
                    self.assertEqual(operator["spec"]["replicas"], 1)

    def test_several_operators_are_updated_one_by_one_spread_and_kept_from_going_together(self):
        manifests = self.manifests["several operators"]
        spec = find(manifests, "Deployment", "scriptscope")["spec"]
        self.assertEqual(spec["strategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
        spread = spec["template"]["spec"]["topologySpreadConstraints"]
        self.assertEqual({one["topologyKey"] for one in spread}, {"topology.kubernetes.io/zone", "kubernetes.io/hostname"})
        self.assertEqual(find(manifests, "PodDisruptionBudget", "scriptscope")["spec"]["maxUnavailable"], 1)
        lease = find(manifests, "Role", "scriptscope-lease")
        self.assertEqual(lease["rules"][1]["resourceNames"], ["scriptscope"])
        self.assertIsNone(find(self.manifests["defaults"], "PodDisruptionBudget", "scriptscope"))
        self.assertIsNone(find(self.manifests["defaults"], "Role", "scriptscope-lease"))

    def test_of_one_namespace_it_has_no_rights_on_others(self):
        manifests = self.manifests["one namespace"]
        wide = {group for rule in find(manifests, "ClusterRole", "scriptscope")["rules"] for group in rule["apiGroups"]}
        self.assertEqual(wide, {"node.k8s.io", "authentication.k8s.io", "authorization.k8s.io"})
        self.assertEqual(find(manifests, "Role", "scriptscope")["metadata"]["namespace"], "shop")

    def test_the_operator_may_never_read_secrets_nor_run_in_pods(self):
        for manifests in self.each():
            for one in manifests:
                if one["kind"] in ("Role", "ClusterRole") and one["metadata"]["name"] in ("scriptscope", "scriptscope-lease"):
                    for rule in one["rules"]:
                        self.assertNotIn("secrets", rule["resources"])
                        self.assertFalse({"pods/exec", "pods/attach"} & set(rule["resources"]))
                        self.assertNotIn("*", rule["verbs"] + rule["resources"] + rule["apiGroups"])

    def test_scripts_do_not_reach_the_metadata_address(self):
        for policy in self.manifests["everything"]:
            if policy["kind"] == "NetworkPolicy" and policy["metadata"]["name"] == "scriptscope-scripts":
                blocks = [to["ipBlock"] for rule in policy["spec"]["egress"] for to in rule.get("to", []) if "ipBlock" in to]
                v4 = next(block for block in blocks if block["cidr"] == "0.0.0.0/0")
                self.assertIn("169.254.0.0/16", v4["except"])
                for rule in policy["spec"]["egress"]:
                    if "to" not in rule:
                        self.assertLessEqual({port["port"] for port in rule["ports"]}, {53, 5353}, "name servers alone")


class Values(unittest.TestCase):
    """Each value by itself."""

    @staticmethod
    def paths(values, prefix=""):
        for key, value in values.items():
            below = isinstance(value, dict) and value and prefix + key not in VALUES
            if below:
                yield from Values.paths(value, prefix + key + ".")
            else:
                yield prefix + key

    def test_each_is_tried(self):
        self.assertEqual(set(self.paths(yaml.safe_load((CHART / "values.yaml").read_text()))), set(VALUES))

    def test_each_does_what_it_says(self):
        for path, (value, context, wanted) in VALUES.items():
            with self.subTest(path):
                before = render(context)
                after = render(merged(context, setting(path, value)))
                self.assertNotEqual(before, after, "it changes nothing")
                if wanted is None:
                    self.assertLess(len(objects(after)) * 10_000_000 + len(after), len(objects(before)) * 10_000_000 + len(before))
                else:
                    self.assertIn(wanted, after)
                    self.assertNotIn(wanted, before)

    def test_each_is_in_the_schema_and_nothing_else_is(self):
        schema = json.loads((CHART / "values.schema.json").read_text())

        def compare(values, schema, path):
            self.assertIs(schema.get("additionalProperties"), False, path)
            self.assertEqual(set(schema["properties"]) - {"global"}, set(values), path)
            for key, value in values.items():
                below = schema["properties"][key]
                if isinstance(value, dict) and "properties" in below and path + key not in ("operator.resources", "agent.resources"):
                    compare(value, below, path + key + ".")

        compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")

    def test_what_can_not_work_is_refused_with_the_reason(self):
        for values, wanted in REFUSED:
            with self.subTest(str(values)):
                code, _, errors = helm("template", values, "scriptscope")
                self.assertNotEqual(code, 0)
                self.assertIn(wanted, errors)

    def test_the_table_in_the_readme_is_that_of_the_values(self):
        code, _, errors = command(ROOT / "scripts/chart-values", "--check")
        self.assertEqual(code, 0, errors)

    def test_notes_warn_of_what_is_lost_and_of_tokens_in_the_clear(self):
        with tempfile.TemporaryDirectory() as folder:
            chart = Path(folder) / "scriptscope"
            shutil.copytree(CHART, chart)
            # Helm shows notes only where there is a cluster.
            text = (chart / "templates/NOTES.txt").read_text()
            (chart / "templates/_notes.tpl").write_text('{{- define "notes" -}}' + text + "{{- end -}}")
            (chart / "templates/notes.yaml").write_text('notes: {{ include "notes" . | toJson }}')

            def notes(values):
                arguments = ("template", "scriptscope", chart, "--values", "-", "--show-only", "templates/notes.yaml")
                code, out, errors = command("helm", *arguments, stdin=json.dumps(values))
                self.assertEqual(code, 0, errors)
                return yaml.safe_load(out)["notes"]

            self.assertNotIn("WARNING", notes({}))
            self.assertIn("runs and logs are lost", notes({"persistence": {"enabled": False}}))
            self.assertIn("finished exports are lost", notes(SEVERAL))
            self.assertIn("in the clear", notes({"ingress": {"enabled": True, "hosts": ["a.example.com"]}}))


class Alerts(unittest.TestCase):
    """Rules and dashboards as files."""

    rules = CHART / "files/rules.yaml"

    def names(self):
        return [rule["alert"] for group in yaml.safe_load(self.rules.read_text())["groups"] for rule in group["rules"]]

    def test_prometheus_reads_the_rules(self):
        code, out, errors = command("promtool", "check", "rules", "--lint=all", "--lint-fatal", self.rules)
        self.assertEqual(code, 0, out + errors)

    def test_what_the_chart_makes_of_them_is_the_same(self):
        made = find(objects(render({"metrics": {"prometheusRule": {"enabled": True}}})), "PrometheusRule", "scriptscope")
        for group in made["spec"]["groups"]:
            for rule in group["rules"]:
                self.assertTrue(rule["annotations"].pop("runbook_url").endswith("docs/runbooks.md#" + rule["alert"].lower()))
        self.assertEqual(made["spec"]["groups"], yaml.safe_load(self.rules.read_text())["groups"])

    def test_each_alert_fires_when_it_should_and_only_then(self):
        code, out, errors = command("promtool", "test", "rules", ROOT / "tests/chart/rules_test.yaml")
        self.assertEqual(code, 0, out + errors)
        tried = set(re.findall(r"alertname: (\w+)", (ROOT / "tests/chart/rules_test.yaml").read_text()))
        self.assertEqual(tried, set(self.names()))

    def test_each_alert_has_a_runbook(self):
        headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(), re.M)
        self.assertEqual(headings, self.names())

    def test_dashboards_have_names_of_their_own_and_take_any_data_source(self):
        boards = [json.loads(path.read_text()) for path in sorted((CHART / "files/dashboards").glob("*.json"))]
        self.assertEqual([board["uid"] for board in boards], ["scriptscope-fleet", "scriptscope-pipeline", "scriptscope-script"])
        for board in boards:
            self.assertNotIn("__inputs", board)
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)))
            for panel in board["panels"]:
                with self.subTest(f"{board['uid']}: {panel['title']}"):
                    self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                    self.assertTrue(panel["targets"])

    def test_panels_do_not_cover_each_other(self):
        for path in (CHART / "files/dashboards").glob("*.json"):
            taken = set()
            for panel in json.loads(path.read_text())["panels"]:
                at = panel["gridPos"]
                cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertFalse(cells & taken, (path.name, panel["title"]))
                self.assertLessEqual(at["x"] + at["w"], 24)
                taken |= cells


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    done = unittest.TextTestRunner(stream=open("/dev/null", "w")).run(suite)
    problems = done.failures + done.errors
    for test, text in problems:
        print(f"--- {test}\n{text}")
    failed = len({str(test).split(" ")[0] for test, _ in problems})
    print(f"{done.testsRun - failed} passed, {failed} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
