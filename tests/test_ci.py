import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mscfs.config.load import find_profile, parse_config

ROOT = Path(__file__).parents[1]


def run_pytest(tmp_path, body):
    (tmp_path / "test_sample.py").write_text(body)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "tests"),
        "PYTEST_ADDOPTS": "",
        "PYTEST_PLUGINS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they load long
    }
    command = [sys.executable, "-m", "pytest", "-p", "no_skips", "-p", "no:cacheprovider", "-c", os.devnull]
    return subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "body",
    [
        "import pytest\n@pytest.mark.skip(reason='no /dev/fuse')\ndef test_a(): pass\n",
        "import pytest\ndef test_a(): pytest.skip('no /dev/fuse')\n",
        "import pytest\npytest.skip('no /dev/fuse', allow_module_level=True)\n",
    ],
)
def test_a_skipped_test_fails_the_run(tmp_path, body):
    done = run_pytest(tmp_path, body + "def test_other(): pass\n")
    assert done.returncode != 0
    assert "SKIPPED BUT HAD TO RUN" in done.stdout
    assert "no /dev/fuse" in done.stdout


@pytest.mark.parametrize(
    "body",
    [
        "import pytest\ndef test_a(): pytest.skip('the store has no conditional put')\n",
        "import pytest\ndef test_a(): pytest.skip('capability: the server loses newlines')\n",
        "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_a(): assert False\n",
        "def test_a(): pass\n",
    ],
)
def test_what_a_store_cannot_do_is_no_failure(tmp_path, body):
    assert run_pytest(tmp_path, body).returncode == 0


def test_the_run_calls_the_commands_of_the_readme():
    readme, run = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    blocks = re.findall(r"```bash\n(bash .*?)\n```", readme, re.DOTALL)
    assert blocks == [
        "bash .ci/bootstrap && .venv/bin/mscfs demo",
        "bash .ci/bootstrap --tests && .venv/bin/pytest",
    ]
    assert "bash .ci/bootstrap --tests || exit 1" in run
    assert re.search(r"check \.venv/bin/pytest$", run, re.MULTILINE)


def test_the_configuration_of_the_readme_is_valid():
    [block] = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    config = parse_config(yaml.safe_load(block))
    assert [replica.profile for replica in find_profile(config, "training-data").replicas] == ["node-disk", "gcs-copy"]
