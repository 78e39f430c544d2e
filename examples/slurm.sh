#!/bin/bash
# One stage of a run in 16 shards, as a Slurm array. Stages follow each other so, each array before its merge:
#
#   job=$(sbatch --parsable --export=ALL,STAGE=01-responses examples/slurm.sh)
#   job=$(sbatch --parsable --dependency=afterok:$job --wrap "cai merge $PWD/runs/mine")
#   job=$(sbatch --parsable --dependency=afterok:$job --export=ALL,STAGE=02-revisions examples/slurm.sh)
#   sbatch --dependency=afterok:$job --gpus=1 --wrap "cai run recipe.yaml --until 03-sl-cai-model"   # merges 02
#
# A shard that was killed goes on where it was: sbatch --array=3,7 … examples/slurm.sh
#SBATCH --job-name=cai
#SBATCH --array=1-16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus=1
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=cai-%A-%a.log
set -euo pipefail

# Not SLURM_ARRAY_TASK_COUNT: it is 2 when --array=3,7 makes two shards of 16 again.
SHARDS=${SHARDS:-16}
RECIPE=${RECIPE:-recipe.yaml}   # its out: is a folder that all machines share
STAGE=${STAGE:-01-responses}

srun cai run "$RECIPE" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" --until "$STAGE"
