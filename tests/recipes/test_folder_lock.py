"""One run at a time works in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from malp_disc.run_folder.lock import HOLDER_SUFFIX, LOCK_FILE, is_locked, lock_folder, release_locks
from malp_disc.training.launch import claim_folder, open_folder
from recipes import evaluate, finetune_stargan, pretrain_malp, train_stargan
from tests.recipes.small_runs import SMALL, options
from tests.recipes.test_bad_input import run as message_of

pytestmark = pytest.mark.usefixtures("release_all_locks")

HOLDER_FILE = LOCK_FILE + HOLDER_SUFFIX
_HOLD = "import sys, time\nfrom malp_disc.run_folder.lock import lock_folder\nlock_folder(sys.argv[1])\nprint('held', flush=True)\ntime.sleep(60)\n"


def test_a_second_run_is_refused_by_the_firsts_name_and_a_killed_one_holds_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert holder.stdout.readline() == "held\n" and is_locked(tmp_path)
        with pytest.raises(ValueError, match=f"process {holder.pid} on .* is working in .*choose another folder"):
            lock_folder(tmp_path, wait=0.2)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    lock_folder(tmp_path)
    lock_folder(tmp_path)  # its own
    assert not is_locked(tmp_path) and json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == os.getpid()


def test_the_holder_is_still_named_after_another_attempt_emptied_the_lock(monkeypatch, tmp_path):
    """Most versions of filelock open the file with O_TRUNC before they find out that it is locked."""
    holder = FileLock(str(tmp_path / LOCK_FILE), thread_local=False)
    monkeypatch.setattr("malp_disc.run_folder.lock.FileLock", lambda *_, **__: holder)
    lock_folder(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr("malp_disc.run_folder.lock._held", {})  # as another process
    os.truncate(tmp_path / LOCK_FILE, 0)
    for _ in range(2):
        assert is_locked(tmp_path)
        with pytest.raises(ValueError, match=f"process {os.getpid()} on .* is working in"):
            lock_folder(tmp_path, wait=0.1)
    holder.release()


@pytest.mark.parametrize("error", [NotImplementedError("FileSystem does not appear to support flock"), OSError("no locks available")])
def test_a_file_system_without_locks_is_warned_of(monkeypatch, tmp_path, caplog, error):
    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: (_ for _ in ()).throw(error))
    lock_folder(tmp_path)
    assert f"can't lock {tmp_path / LOCK_FILE} ({error}): make sure that no other run works in this folder" in caplog.text
    (tmp_path / LOCK_FILE).touch()
    assert not is_locked(tmp_path)


def test_a_released_lock_names_no_holder(tmp_path):
    lock_folder(tmp_path)
    release_locks()
    assert not (tmp_path / HOLDER_FILE).exists()
    with FileLock(str(tmp_path / LOCK_FILE)), pytest.raises(ValueError, match="another process is working in"):
        lock_folder(tmp_path, wait=0.1)


def test_a_dry_run_also_says_that_the_folder_cant_be_used(tmp_path):
    (tmp_path / "notes.txt").write_text("a file")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("notes.txt", "notes.txt/run", "gone"):
        with pytest.raises(ValueError, match="can't write to .*choose another --output-dir"):
            open_folder(options(output_dir=tmp_path / name), dry=True)
    open_folder(options(output_dir=tmp_path / "new" / "run"), dry=True)
    assert not (tmp_path / "new").exists()
    (tmp_path / LOCK_FILE).touch()
    with FileLock(str(tmp_path / LOCK_FILE)):
        for dry in (True, False):
            began = time.monotonic()
            with pytest.raises(ValueError, match="is working in"):
                open_folder(options(output_dir=tmp_path), dry=dry)
            assert time.monotonic() - began < 5, "only a resumed run waits"


def test_a_recipe_leaves_a_folder_alone_in_which_another_run_works(monkeypatch, tmp_path):
    """Another process, as far as a lock knows: a second file object."""
    other = FileLock(str(tmp_path / LOCK_FILE), thread_local=False)
    other.acquire()
    (tmp_path / HOLDER_FILE).write_text('{"pid": 7, "host": "node3"}')
    monkeypatch.setattr("malp_disc.run_folder.lock._WAIT", 0.1)
    try:
        for recipe, flags in ((train_stargan, []), (pretrain_malp, []), (finetune_stargan, ["--resume-from-checkpoint", "latest"]), (evaluate, SMALL[2:])):
            message = message_of(monkeypatch, recipe, "--output-dir", tmp_path, *flags)
            assert f"process 7 on node3 is working in {tmp_path}" in message
        assert {path.name for path in tmp_path.iterdir()} == {LOCK_FILE, HOLDER_FILE}
    finally:
        other.release()


def test_processes_that_claim_one_folder_at_the_same_time_do_not_disturb_each_other(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: claim_folder(tmp_path / "run"), range(400)))
    assert list((tmp_path / "run").iterdir()) == []
