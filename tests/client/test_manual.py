from __future__ import annotations

import doctest
import re
from pathlib import Path

MANUAL = Path(__file__).parents[2] / "docs" / "library.md"


def test_the_examples_of_the_manual_do_what_it_says(tmp_path, monkeypatch):
    text = MANUAL.read_text()
    configuration = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1].replace("/srv", str(tmp_path))
    for name in ("data", "near", "far"):
        (tmp_path / name).mkdir()
    (tmp_path / "config.yaml").write_text(configuration)
    monkeypatch.setenv("MSC_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.chdir(tmp_path)
    # Without the fences, which would pass for expected output.
    examples = re.sub(r"^```.*$", "", text, flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(examples, {}, MANUAL.name, str(MANUAL), 0)
    assert len(test.examples) > 25
    failed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(test, out=failed.append)
    assert failed == [], "".join(failed)
