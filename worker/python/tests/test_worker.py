"""The parts of a worker that need no runner."""

import functools
import json
import os
import tempfile
import types
import unittest

import worker


def module(text):
    made = types.ModuleType("main")
    exec(text, made.__dict__)
    return made


class Functions(unittest.TestCase):
    def test_only_public_functions_of_main_are_found(self):
        made = module("from json import dumps\ndef a(): pass\ndef _b(): pass\nclass C: pass\nd = lambda x: x\ne = 1")
        made.cached = functools.cache(made.a)
        self.assertEqual(sorted(worker.functions_of(made)), ["a", "cached", "d"])

    def test_a_description_says_what_a_caller_must_know(self):
        made = module("def f(a, /, b: 'int' = 1, *rest, c=object, **more):\n '''Doc.'''")
        described = worker.describe("f", made.f)
        self.assertTrue(described["acceptsAnyArgument"])
        self.assertEqual(described["doc"], "Doc.")
        a, b, c = described["parameters"]
        self.assertEqual(a, {"name": "a", "required": True})
        self.assertEqual(b, {"name": "b", "required": False, "default": 1, "annotation": "int"})
        self.assertEqual(c["default"], "<class 'object'>")
        json.dumps(described)

    def test_arguments_are_passed_by_name(self):
        made = module("async def f(a, /, b=2, **more): return [a, b, more]")
        self.assertEqual(worker.call(made.f, {"a": 1, "x": 3}), [1, 2, {"x": 3}])


class Failures(unittest.TestCase):
    def test_a_failure_has_only_text_that_is_text(self):
        class Odd(Exception):
            def __str__(self):
                return "half \udcff"

        try:
            raise Odd
        except Odd as error:
            failed = worker.failure(error)
        self.assertEqual(failed["message"], "half \\udcff")
        json.dumps(failed).encode()

    def test_why_a_script_can_not_be_loaded_is_one_paragraph(self):
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        for text, reason in [
            ("def f(:\n", "SyntaxError in main.py, line 1: invalid syntax: `def f(:`"),
            ("\nimport nowhere\n", "ModuleNotFoundError in main.py, line 2: No module named 'nowhere': `import nowhere`"),
            ("import sys\nsys.exit(3)\n", "sys.exit in main.py, line 2: main.py called sys.exit(3)"),
            (None, "main.py is missing in"),
        ]:
            with self.subTest(reason), tempfile.TemporaryDirectory() as folder:
                if text is not None:
                    with open(os.path.join(folder, "main.py"), "w", encoding="utf-8") as file:
                        file.write(text)
                with self.assertRaises(worker.LoadFailed) as caught:
                    worker.load(folder)
                self.assertIn(reason, str(caught.exception))
                self.assertEqual(len(str(caught.exception).splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
