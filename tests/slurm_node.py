"""A Slurm of one node, on loopback alone, started for the tests and ended by them."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
_CPUS, _MEMORY_MIB = 4, 8000


def missing():
    """Return why Slurm cannot be started here, or None."""
    if os.geteuid() != 0:
        return "a Slurm of our own needs root"
    os.environ["PATH"] = os.environ["PATH"] + ":/usr/sbin"
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    return (
        f"not installed: {', '.join(lacking)} (Debian: slurmctld slurmd slurm-client munge)"
        if lacking
        else None
    )


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Slurm:
    """The daemons, their folder, and what their commands say."""

    def __init__(self, folder):
        self.folder = Path(folder)
        for name in ("state", "spool", "log", "munge"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.conf = self.folder / "slurm.conf"
        self.conf.write_text(self._configuration())
        os.environ["SLURM_CONF"] = str(self.conf)

    def _configuration(self):
        host, (controller, node) = socket.gethostname().split(".")[0], free_ports(2)
        plugins = next(Path("/usr/lib").glob("*/slurm-wlm"))
        settings = {
            "ClusterName": "loopback",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "SlurmctldPort": controller,
            "SlurmdPort": node,
            "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/munge/socket",
            "CredType": "cred/munge",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
            "SlurmctldLogFile": self.folder / "log" / "slurmctld.log",
            "SlurmdLogFile": self.folder / "log" / "slurmd.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "MailProg": "/bin/true",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "sched_min_interval=100000,bf_interval=1",
            "SlurmdParameters": "config_overrides",  # more CPUs than the machine may have
            "ReturnToService": 2,
            "KillWait": 5,
            "PluginDir": plugins,
        }
        node = f"NodeName={host} NodeAddr=127.0.0.1 CPUs={_CPUS} RealMemory={_MEMORY_MIB} State=UNKNOWN"
        queue = f"PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP"
        lines = [f"{name}={value}" for name, value in settings.items()]
        return "\n".join([*lines, node, queue, ""])

    def __enter__(self):
        munge = self.folder / "munge"
        self._run(
            "munged",
            "--force",
            f"--socket={munge}/socket",
            f"--key-file={munge}/key",
            "--num-threads=2",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={munge}/seed",
            f"--log-file={self.folder}/log/munged.log",
        )
        self._run("slurmctld", "-f", str(self.conf), "-c", "-i")
        self._run("slurmd", "-f", str(self.conf))
        self.until(lambda: self.say("sinfo", "-h", "-o", "%T") == "idle", 30)
        return self

    def __exit__(self, *_):
        self.say("scancel", "--user=root")
        self.until(lambda: not self.jobs(), 30)
        for name in ("slurmd", "slurmctld", "munged"):
            file = self.folder / f"{name}.pid"
            if file.exists():
                os.kill(int(file.read_text()), 15)
        del os.environ["SLURM_CONF"]

    def _run(self, *words):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words[0], done.stdout, done.stderr)

    def say(self, *words):
        """Return what a command of Slurm's prints."""
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()

    def jobs(self, state=None):
        """Return the jobs in the queue, number to name, those in one state or all."""
        words = ["squeue", "-h", "-o", "%A %j", *([f"--states={state}"] if state else [])]
        return dict(line.split() for line in self.say(*words).splitlines())

    def until(self, holds, seconds=60):
        """Wait until something holds; return it."""
        start = time.monotonic()
        while not (found := holds()):
            assert time.monotonic() - start < seconds, self.say("squeue", "-l")
            time.sleep(0.1)
        return found
