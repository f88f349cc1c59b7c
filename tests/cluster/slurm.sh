#!/usr/bin/env bash
# A SLURM cluster on one machine for tests: munge, a controller, two node daemons, three made-up
# GPUs on each node.
#
#   tests/cluster/slurm.sh up FOLDER         start it; state and logs are in FOLDER
#   tests/cluster/slurm.sh node FOLDER NAME  start one node daemon again
#   tests/cluster/slurm.sh down FOLDER       stop everything that up started, remove FOLDER
#
# Needs root and Debian's packages: apt-get install --no-install-recommends slurm-wlm munge
set -euo pipefail

MARK="# made by tests/cluster/slurm.sh"
# Snakemake's job step drops SLURM_CONF, so the file has to be in SLURM's default place.
CONF=/etc/slurm/slurm.conf
GRES=/etc/slurm/gres.conf
NODES="icmbench1 icmbench2"

die() { echo "slurm.sh: $*" >&2; exit 1; }

ours() { [ -f "$1" ] && head -n 1 "$1" | grep -qxF "$MARK"; }

write_configuration() {
  local host port=26820
  host=$(hostname)
  cat > "$CONF" <<EOF
$MARK
ClusterName=icmbench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26819
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job is held for the life of its credential, two minutes by default.
AuthInfo=cred_expire=10
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdPidFile=$FOLDER/%n.pid
SlurmdLogFile=$FOLDER/%n.log
SlurmdSpoolDir=$FOLDER/spool-%n
StateSaveLocation=$FOLDER/state
# One line for each job that ended: state, node, partition.
JobCompType=jobcomp/filetxt
JobCompLoc=$FOLDER/jobs.log
AccountingStorageType=accounting_storage/none
# Containers have no cgroups.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
# Jobs go to the node with the least load, so that a small run uses both.
SelectTypeParameters=CR_Core_Memory,CR_LLN
# Nodes may have more cores than the machine.
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
KillWait=10
MinJobAge=300
# Refuse a job that no node can run; the default lets it wait.
EnforcePartLimits=ALL
EOF
  echo "$MARK" > "$GRES"
  for node in $NODES; do
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=4 RealMemory=8000" \
      "Gres=gpu:toy:3" >> "$CONF"
    echo "NodeName=$node Name=gpu Type=toy File=$FOLDER/gpu[0-2]" >> "$GRES"
    port=$((port + 1))
  done
  echo "PartitionName=cpu Nodes=ALL Default=YES MaxTime=60 State=UP" >> "$CONF"
  echo "PartitionName=gpu Nodes=ALL MaxTime=60 State=UP" >> "$CONF"
}

start_munge() {
  # A running munge is used and left running.
  if munge -n > /dev/null 2>&1; then return; fi
  mkdir -p /run/munge
  dd if=/dev/urandom of="$FOLDER/munge.key" bs=1024 count=1 status=none
  chmod 600 "$FOLDER/munge.key"
  munged --force --key-file="$FOLDER/munge.key" --pid-file="$FOLDER/munged.pid" \
    --log-file="$FOLDER/munged.log" --seed-file="$FOLDER/munged.seed"
}

wait_until_idle() {
  for _ in $(seq 200); do
    [ "$(sinfo -h -N -o %T 2> /dev/null | sort -u)" = idle ] && return
    sleep 0.1
  done
  sinfo -N -o "%N %T %E" >&2
  die "the nodes are not idle after 20 s; see the logs in $FOLDER"
}

up() {
  [ "$(id -u)" = 0 ] || die "needs root"
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" > /dev/null || die "$program is not installed"
  done
  # Left behind by a killed test.
  if ours "$CONF" && ! pgrep -x "slurmctld|slurmd" > /dev/null; then rm -f "$CONF" "$GRES"; fi
  [ ! -e "$CONF" ] || die "$CONF exists: SLURM is installed here, or a test did not call down"
  mkdir -p "$FOLDER/state" /etc/slurm
  # Null devices as GPUs: SLURM assigns device files, which must be distinct.
  for gpu in 0 1 2; do mknod "$FOLDER/gpu$gpu" c 1 3; done
  write_configuration
  start_munge
  slurmctld -c
  for node in $NODES; do slurmd -N "$node"; done
  wait_until_idle
}

end() {
  local pid
  [ -s "$FOLDER/$1.pid" ] || return 0
  pid=$(cat "$FOLDER/$1.pid")
  kill "$pid" 2> /dev/null || return 0
  for _ in $(seq 100); do
    kill -0 "$pid" 2> /dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2> /dev/null || true
}

# Processes of jobs that outlived their node daemon, and their step daemons.
end_orphans() {
  local process
  for process in $(grep -lzxE "SLURMD_NODENAME=(${NODES// /|})" /proc/[0-9]*/environ 2> /dev/null); do
    kill -KILL "$(basename "$(dirname "$process")")" 2> /dev/null || true
  done
  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/cwd")" = "$FOLDER" ] || continue
    kill -KILL "$(basename "$process")" 2> /dev/null || true
  done
}

down() {
  ours "$CONF" || die "$CONF was not written by this script; nothing was stopped"
  [ -d "$FOLDER" ] || die "no folder $FOLDER"
  timeout 20 scancel --full --user root 2> /dev/null || true
  for _ in $(seq 150); do
    [ -z "$(timeout 5 squeue -h 2> /dev/null)" ] && break
    sleep 0.1
  done
  for node in $NODES; do end "$node"; done
  end slurmctld
  end munged
  end_orphans
  rm -f "$CONF" "$GRES"
  rm -rf "$FOLDER"
}

[ $# -ge 2 ] || die "usage: slurm.sh up|down FOLDER, slurm.sh node FOLDER NAME"
FOLDER=$(realpath -m "$2")
case "$1" in
  # A failed start cleans up, too.
  up) (up) || { ours "$CONF" && (down) ; exit 1; } ;;
  down) down ;;
  node) slurmd -N "$3" ;;
  *) die "unknown command $1" ;;
esac
