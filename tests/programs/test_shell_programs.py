"""Programs of every day, run on a mount and on local disk: same output, same files."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs.places import Twins, on_all, on_two

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

MAKE_SOURCE = """
mkdir -p source/sub/empty
for n in $(seq 8); do seq $((n * 500)) > source/sub/f$n; done
printf '#!/bin/sh\\necho run\\n' > source/program; chmod 755 source/program
chmod 600 source/sub/f1
ln -s sub/f2 source/link
touch -d '2001-02-03 04:05:06.789' source/sub/f3
"""
SHOW = r"find . -type f -printf '%P %s %m %T@\n' | sort"


@on_all
def test_cp_keeps_what_it_copies(twins: Twins):
    twins.sh(
        MAKE_SOURCE
        + r"""
        cp -a source copy
        diff -r source copy
        test "$(stat -c %Y.%a source/sub/f3)" = "$(stat -c %Y.%a copy/sub/f3)"
        readlink copy/link
        copy/program
        cp --preserve=mode,timestamps source/sub/f3 f3
        stat -c '%s %a %Y' f3
        """
    )


@on_two
def test_a_second_rsync_copies_nothing(twins: Twins):
    output = twins.sh(
        MAKE_SOURCE
        + r"""
        sync() { rsync -a --stats "$@" | sed -n 's/.*regular files transferred: //p'; }
        sync source/ copy/
        sync source/ copy/
        sync --inplace --no-whole-file source/ copy/
        echo more >> source/sub/f5
        sync --inplace --no-whole-file source/ copy/
        rm source/sub/f6
        sync --delete source/ copy/
        diff -r source copy
        """
    )
    assert output.split() == ["9", "0", "0", "1", "0"]


@on_all
def test_extended_attributes_are_in_no_copys_way(twins: Twins, tmp_path: Path):
    """Every file of a mount has some, which tell where it is; copies of them mean nothing."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    twins.sh(
        r"""
        echo content > a
        rsync -aX a "$ELSEWHERE/a"
        rsync -aX "$ELSEWHERE/a" b
        echo new > "$ELSEWHERE/c"; rsync -aX "$ELSEWHERE/c" d; rsync -aX "$ELSEWHERE/c" d
        cp --preserve=all a e; tar --xattrs -cf t.tar a; mkdir out; tar --xattrs -xf t.tar -C out; rm t.tar
        rm -r "$ELSEWHERE"/*
        """,
        ELSEWHERE=elsewhere,
    )


@on_two
def test_tar_in_and_out_and_zip(twins: Twins):
    twins.sh(
        MAKE_SOURCE
        + r"""
        tar czf all.tgz source
        mkdir out; tar xzf all.tgz -C out
        diff -r source out/source
        test "$(stat -c %Y.%a source/sub/f3)" = "$(stat -c %Y.%a out/source/sub/f3)"
        tar cf grown.tar source/sub/f1; tar rf grown.tar source/sub/f2; tar tf grown.tar
        zip -qr all.zip source
        zip -q all.zip all.tgz
        unzip -qt all.zip >/dev/null
        unzip -q all.zip -d unzipped
        diff -r source/sub unzipped/source/sub
        rm all.tgz all.zip grown.tar unzipped/all.tgz
        """
    )


@on_two
def test_git_clone_commit_and_gc(twins: Twins):
    twins.sh(
        r"""
        export GIT_AUTHOR_DATE='2001-02-03T04:05:06Z' GIT_COMMITTER_DATE='2001-02-03T04:05:06Z'
        export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@localhost GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@localhost
        export GIT_CONFIG_GLOBAL=/dev/null
        git init -q -b trunk --template= first; cd first
        for n in 1 2; do seq $n 100 > f$n; git add f$n; git commit -qm "commit $n"; done
        cd ..; git clone -q --template= first second; cd second
        git checkout -q -b side; echo more >> f1; git commit -qam side
        git push -q origin side
        git gc -q; git fsck --strict
        git status --porcelain
        git log --format='%H %s'
        git -C ../first rev-parse side
        cd ..; rm -rf first/.git second/.git
        """
    )


@on_all
def test_files_changed_in_place(twins: Twins):
    twins.sh(
        r"""
        seq 1000 > a
        sed -i 's/^5/five/' a
        sed -i.bak 's/^6/six/' a
        dd if=/dev/zero of=a bs=1 count=10 seek=100 conv=notrunc status=none
        truncate -s 2000 a; truncate -s 1M sparse; truncate -s +10 a
        printf x | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
        seq 3000 > b
        split -l 700 b part.; cat part.* | cmp - b
        sort -rn -o b b; head -n 2 b
        shuf --random-source=b b | sort -n | tail -n 1
        echo appended >> b; tail -n 1 b
        perl -pi -e 's/^12/twelve/' b
        : > b.empty; cat b.empty; ln -s b c; cat c | wc -l
        install -m 640 b installed; mv installed moved; stat -c '%a %s' moved
        mkdir -p d/e; mv part.* d/e; mv d f; ls f/e; mv f/e .; rmdir f
        """
    )


@on_two
def test_searches_and_deletes(twins: Twins):
    twins.sh(
        MAKE_SOURCE
        + r"""
        grep -rl '^1234$' source | sort
        grep -c . source/sub/f1
        find source -name 'f[1-4]' -newermt 2020-01-01 -delete
        find source | sort
        find source -empty -delete
        find source -type f -exec wc -c {} + | sort -n | tail -n 1
        rm -rf source/sub
        ls -A source
        """
    )


@on_all
def test_N1_directories_outlive_their_last_file(twins: Twins):
    """What `test_what_stays` finds again after a remount."""
    twins.sh(
        r"""
        mkdir -p emptied/below never/filled
        echo 1 > emptied/file; echo 2 > emptied/below/file
        rm emptied/file emptied/below/file
        ls -R emptied; rmdir never/filled; ls never; mkdir -p never/filled
        mv emptied moved; mkdir emptied
        """
    )


@on_two
def test_deep_trees_and_long_names(twins: Twins):
    twins.sh(
        r"""
        long=$(printf 'n%.0s' $(seq 255)); deep=$(printf 'd/%.0s' $(seq 40))
        mkdir -p "$long/$long" "$deep"
        echo 1 > "$long/$long/$long"; echo 2 > "$deep/file"
        ! touch "${long}n" 2>/dev/null
        find . -depth | sort | md5sum
        mv d moved; cat "moved/${deep#d/}file"; cp -r "$long" copied; cat "copied/$long/$long"
        rm -rf moved copied; ls | wc -l
        """
    )


@on_two
def test_a_program_is_built_and_runs(twins: Twins):
    twins.sh(
        r"""
        printf '#include <stdio.h>\nint twice(int);\n' > main.c
        printf 'int main(void) { printf("%%d\\n", twice(21)); return 0; }\n' >> main.c
        printf 'int twice(int n) { return 2 * n; }\n' > twice.c
        printf 'program: main.o libtwice.a\n\t$(CC) -o $@ main.o -L. -ltwice\n' > Makefile
        printf 'libtwice.a: twice.o\n\tar rc $@ $^\n' >> Makefile
        make -s; ./program
        make -q
        sed -i 's/2 \* n/3 * n/' twice.c
        make -s; ./program
        strip program; ./program
        """
    )


@on_two
def test_python_compiles_and_lives_here(twins: Twins):
    twins.sh(
        r"""
        mkdir package; echo 'answer = 42' > package/__init__.py; echo 'from package import answer' > package/other.py
        "$PYTHON" -m compileall -q package; ls package/__pycache__ | wc -l
        "$PYTHON" -c 'from package.other import answer; print(answer)'
        "$PYTHON" -m venv --without-pip env
        env/bin/python -c 'import sys; print(sys.prefix != sys.base_prefix)'
        rm -rf package/__pycache__ env
        """,
        PYTHON=sys.executable,
    )


@on_two
@pytest.mark.parametrize("backup", ["backupcopy=yes", "backupcopy=no", "nobackup nowritebackup"])
def test_vim_saves(twins: Twins, backup: str):
    twins.sh(
        r"""
        seq 20 > text; chmod 640 text
        vi -u NONE -es -c "set backup swapfile backupskip= $BACKUP" -c '%s/^1/one/' -c wq text
        vi -u NONE -es -c "set backup swapfile backupskip= $BACKUP" -c '$s/$/ the last/' -c x text
        cat text
        ls -A
        """,
        BACKUP=backup,
    )


@on_two
def test_nano_saves(twins: Twins):
    for here in (twins.local, twins.mounted):
        (here / "text").write_text("line\n")
        pid, terminal = pty.fork()
        if not pid:
            os.environ["TERM"] = "xterm"
            os.execlp("nano", "nano", "--ignorercfiles", "--backup", here / "text")
        screen = b""
        with contextlib.suppress(OSError):  # the end of the terminal
            while part := os.read(terminal, 4096):
                if b"Exit" not in screen and b"Exit" in screen + part:
                    os.write(terminal, b"typed \x0f\r\x18")  # save, under that name, and end
                screen += part
        os.close(terminal)
        assert os.waitpid(pid, 0)[1] == 0
        assert (here / "text").read_text() == "typed line\n"
    twins.compare()


@on_all
def test_logs_are_rotated_and_followed(twins: Twins):
    """`tail -F` sees what is written before it is closed, and goes on with the new file."""
    outputs = []
    for here in (twins.local, twins.mounted):
        log = here / "log"
        log.write_text("start\n")
        with subprocess.Popen(
            ["tail", "-s", "0.05", "-n", "+1", "-F", log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as tail:
            assert tail.stdout is not None
            lines = [tail.stdout.readline()]
            with log.open("a", buffering=1) as file:
                for number in range(3):
                    print("growing", number, file=file)
                    lines.append(tail.stdout.readline())
            log.rename(here / "log.1")
            with log.open("a") as file:
                print("new file", file=file)
            lines.append(tail.stdout.readline())
            with log.open("a") as file:
                print("opened again", file=file)
            lines.append(tail.stdout.readline())
            tail.kill()
        outputs.append(lines)
    assert outputs[1] == outputs[0]
    twins.compare()
