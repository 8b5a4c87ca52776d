#!/usr/bin/env bash
# Slurm: one study on whole nodes, which form a Ray cluster while the job lasts.
#
#   sbatch slurm.sh        # submitted again, it continues from the store; the report is written below reports/ here
#
# Change these: how many nodes, for how long, and the four values below.
#SBATCH --job-name=freezewise
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
# --exclusive: Ray takes all cores and GPUs that it sees, its ports are those of the machine, and in the end
# `ray stop` ends every Ray of yours on these nodes.
# --requeue: after a lost node Slurm starts the job again; at most a minute of each Run is trained twice.
# --signal: three minutes before the time limit, the job requeues itself (below).

SPACE=quickstart                 # a search space: its name, or the absolute path of its file
ROOT=/shared/store               # the store, on a file system that all nodes see
FLAGS=(--gpus-per-trial 0.25)    # further flags of `study run`
PORT=6379

# source /shared/venv/bin/activate

set -u
# A token of this job's own: without it, anyone with network access to the nodes could run code on them.
umask 077
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/freezewise-$SLURM_JOB_ID
mkdir -p "$HOME/.ray"
[ -s "$RAY_AUTH_TOKEN_PATH" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"
export RAY_USAGE_STATS_ENABLED=0
# symmetric-run waits for all nodes, by default for 30 s, which is too short for a busy node.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600

again() {
    echo "the time limit is near: requeued"
    scontrol requeue "$SLURM_JOB_ID"
}
trap again USR1

# The head's address, as another node resolves its name: the head's own hosts file may say loopback, and the
# first of its addresses may be that of a bridge or of another network.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
other=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n 1)
if [ "$other" = "$head" ]; then
    address=127.0.0.1 # one node
else
    address=$(srun --nodes=1 --ntasks=1 --nodelist="$other" getent ahostsv4 "$head" | awk '{ print $1; exit }')
fi
[ -n "$address" ] || { echo "$other cannot resolve the name of $head"; exit 2; }

# --cpus-per-task: without it, Slurm may bind the task to a single core, although the node is the job's own.
srun --cpus-per-task="$SLURM_CPUS_ON_NODE" ray symmetric-run --address "$address:$PORT" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
    study run "$SPACE" --root "$ROOT" --address "$address:$PORT" "${FLAGS[@]}" &
# bash runs a trap only between two waits.
while kill -0 $! 2> /dev/null; do wait $!; done

# symmetric-run also exits with 0 if Ray did not start and after Ctrl-C, so ask the store what is done.
study status "$SPACE" --root "$ROOT" --exit-code
