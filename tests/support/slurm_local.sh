#!/usr/bin/env bash
# A real SLURM on this machine alone, for tests: controller, node and MUNGE, no accounting, four pretended GPUs.
#   SLURM_LOCAL=/tmp/short-private-folder bash slurm_local.sh up|down
# Debian: apt-get install --no-install-recommends munge slurmctld slurmd slurm-client
set -euo pipefail
D=${SLURM_LOCAL:?a private, short, absolute folder: socket paths end at 108 bytes}
H=$(hostname -s)
U=$(id -un)
export PATH="$PATH:/usr/sbin" SLURM_CONF="$D/etc/slurm.conf"

devices() { # SLURM takes devices for GPUs, no plain files
  if mknod "$D/gpu0" c 1 3 2>/dev/null; then
    for i in 1 2 3; do mknod "$D/gpu$i" c 1 3; done
    echo "$D/gpu[0-3]"
  else
    echo "/dev/tty[0-3]"
  fi
}

config() {
  cat <<CONF
ClusterName=local
SlurmctldHost=$H(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=$U
SlurmdUser=$U
AuthType=auth/munge
AuthInfo=socket=$D/run/munge.socket
CredType=cred/munge
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MinJobAge=600
KillWait=5
GresTypes=gpu
NodeName=$H NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:4 State=UNKNOWN
PartitionName=main Nodes=$H Default=YES MaxTime=1440 State=UP
CONF
}

up() {
  mkdir -p "$D"/{bin,munge,state,spool,log,etc,run}
  chmod 755 "$D" "$D/run" "$D/log"
  chmod 700 "$D/munge"
  head -c 1024 /dev/urandom >"$D/munge/key"
  chmod 400 "$D/munge/key"
  config >"$SLURM_CONF"
  printf 'AutoDetect=off\nNodeName=%s Name=gpu File=%s\n' "$H" "$(devices)" >"$D/etc/gres.conf"
  # Inside a job Snakemake's plugin drops SLURM_CONF before it calls srun; this one puts it back.
  printf '#!/bin/sh\nSLURM_CONF=%s exec /usr/bin/srun "$@"\n' "$SLURM_CONF" >"$D/bin/srun"
  chmod +x "$D/bin/srun"
  munged --force --key-file="$D/munge/key" --socket="$D/run/munge.socket" --pid-file="$D/run/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$D/munge/seed"
  slurmctld -f "$SLURM_CONF"
  slurmd -f "$SLURM_CONF"
  for _ in $(seq 120); do
    if sinfo -h -o %t 2>/dev/null | grep -q idle; then return 0; fi
    sleep 0.5
  done
  tail -n 20 "$D/log/slurmctld.log" "$D/log/slurmd.log"
  return 1
}

down() {
  for name in slurmd slurmctld munged; do
    [ -s "$D/run/$name.pid" ] || continue
    pid=$(cat "$D/run/$name.pid")
    kill "$pid" || true
    for _ in $(seq 50); do # they write on their way out
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.2
    done
  done
}

"$@"
