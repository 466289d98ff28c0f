# A Slurm of its own on this machine: munged, slurmctld and several slurmd on loopback, without systemd, cgroups or a data base. To be
# sourced by a script that has set `home`, a folder that is deleted afterwards, and `nodes`, how many.

# What is started here is ended here, by number.
daemons=()

slurm_start() {
    local host port
    host=$(hostname -s)
    # In a range that is free with luck; a second Slurm on this machine has another one.
    port=$((20000 + $$ % 20000))
    mkdir -p "$home"/{munge,state,log}
    chmod 700 "$home/munge"
    head -c 1024 /dev/urandom >"$home/munge/key"
    chmod 400 "$home/munge/key"
    munged --force --foreground --key-file="$home/munge/key" --socket="$home/munge/socket" --pid-file="$home/munge/pid" \
        --log-file="$home/log/munged" --seed-file="$home/munge/seed" 2>"$home/log/munged.err" &
    daemons+=($!)
    # cred_expire is also how long a requeued task has to wait.
    cat >"$home/slurm.conf" <<CONF
ClusterName=selftrace
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge/socket,cred_expire=15
CredType=cred/munge
SlurmctldPort=$port
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool.%n
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.%n.pid
SlurmctldLogFile=$home/log/slurmctld
SlurmdLogFile=$home/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$home/log/jobs
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=15
KillWait=25
MinJobAge=600
MaxArraySize=${max_array:-1001}
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + nodes))] CPUs=1
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE GraceTime=0
PartitionName=high Nodes=ALL PriorityTier=10 MaxTime=INFINITE PreemptMode=OFF
CONF
    export SLURM_CONF=$home/slurm.conf
    wait_for 10 test -S "$home/munge/socket"
    slurmctld -D -c >/dev/null 2>"$home/log/slurmctld.err" &
    daemons+=($!)
    for node in $(seq 1 "$nodes"); do slurmd_start "n$node"; done
    wait_for 60 all_nodes_idle
}

slurmd_start() {
    mkdir -p "$home/spool.$1"
    slurmd -D -N "$1" >/dev/null 2>"$home/log/slurmd.$1.err" &
    daemons+=($!)
    eval "slurmd_$1=$!"
}

all_nodes_idle() {
    [ "$(sinfo --noheader --Node --partition=low --states=idle --format=%N 2>/dev/null | wc -l)" -eq "$nodes" ]
}

# Waits until a command succeeds, for so many seconds.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        if [ $SECONDS -ge $end ]; then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        sleep .5
    done
}

slurm_stop() {
    if [ -n "${SLURM_CONF:-}" ]; then
        scancel --me 2>/dev/null || true
        sleep 1
    fi
    for ((turn = ${#daemons[@]} - 1; turn >= 0; turn--)); do
        kill "${daemons[turn]}" 2>/dev/null || true
    done
    wait 2>/dev/null || true
}
