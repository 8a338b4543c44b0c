#!/bin/bash
# A search on a SLURM cluster: every network is trained data-parallel over all tasks of the job.
#
#   sbatch --nodes 2 experiments/launch/slurm.sh experiments/my_recipe.yaml [--key value ...]
#
# The recipe's target says trainer: {strategy: ddp}; devices and nodes are those of the job. A job that is preempted,
# loses a node or comes to its time limit is queued again and goes on in the same run folder, which, like the recipe and
# the data, must lie where every node sees it.
#
#SBATCH --job-name=catchmark
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out

set -u

# Two minutes before the time limit every rank gets SIGTERM (--signal), closes what it has, and ends with 130.
srun --kill-on-bad-exit=1 catchmark run "$@" --quiet
code=$?

# A preempted job is queued again by SLURM; one that ran out of time queues itself. `scancel` ends this script with the
# job, so what a user cancelled stays cancelled.
if [ "$code" -eq 130 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
