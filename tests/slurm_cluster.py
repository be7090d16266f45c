"""A Slurm with one node on this machine, for tests: its files in one folder, its ports on the loopback interface."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
# The node claims more than small machines have (config_overrides); its GPUs are device files that exist everywhere.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MinJobAge=3600
SlurmdTimeout=10
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=cpu Nodes={host} Default=YES
PartitionName=gpu Nodes={host}
"""


class Slurm:
    """Controller, authentication and node, from `start` to `stop`; Slurm's programs find them by `environment`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.host = socket.gethostname().split(".")[0]
        path = os.pathsep.join([str(folder), os.environ["PATH"]])
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": path}
        self.daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        user = pwd.getpwuid(os.getuid()).pw_name
        text = CONFIGURATION.format(folder=self.folder, host=self.host, user=user, ports=_free_ports(2))
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "gres.conf").write_text(f"NodeName={self.host} Name=gpu File=/dev/null,/dev/zero\n")
        # Snakemake's plugin removes Slurm's variables for the `srun` of a job, which on a real node finds /etc/slurm.
        (self.folder / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
        (self.folder / "srun").chmod(0o755)
        options = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={self.folder}/munge.socket", *options)
        self._daemon("slurmctld", "-D")
        self.start_node()

    def start_node(self) -> None:
        """A node with process ids of its own: when the first of them ends, Linux ends all, as when a machine dies."""
        self.node = self._daemon("unshare", "--pid", "--mount-proc", "--fork", "--kill-child=KILL", "slurmd", "-D")
        wait_for(lambda: self.ask("sinfo", "--noheader", "--format=%T") in ("idle", "mixed", "allocated"), self.log)

    def kill_node(self) -> None:
        """End the node and every process on it, at once."""
        self.node.kill()
        self.node.wait()

    def stop(self) -> None:
        self.kill_node()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait()

    def ask(self, *command: str) -> str:
        """What one of Slurm's programs prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """Every job so far as `scontrol` shows it; Snakemake's plugin names rule and wildcards in Comment."""
        lines = self.ask("scontrol", "--oneliner", "show", "jobs").splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if line.startswith("JobId")]

    def log(self) -> str:
        """The end of every daemon's log."""
        return "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.log"))

    def _daemon(self, *command: str) -> subprocess.Popen:
        silent = subprocess.DEVNULL
        daemon = subprocess.Popen(
            command, env=self.environment, stdin=silent, stdout=silent, stderr=silent, start_new_session=True
        )
        self.daemons.append(daemon)
        return daemon


def missing_programs() -> list[str]:
    """Programs that a Slurm of our own needs and this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


def most_at_once(jobs: list[dict[str, str]]) -> int:
    """The largest number of finished jobs that were in the queue or running in the same second."""
    changes = [(datetime.fromisoformat(job["SubmitTime"]), 1) for job in jobs]
    changes += [(datetime.fromisoformat(job["EndTime"]), -1) for job in jobs]
    now = most = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def wait_for(condition: Callable[[], bool], explain: Callable[[], str], seconds: float = 120) -> None:
    """Wait until `condition` holds; after so many seconds fail with what `explain` says."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, explain()
        time.sleep(0.5)


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
