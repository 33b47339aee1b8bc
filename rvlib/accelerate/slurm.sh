#!/bin/bash
#SBATCH --job-name=rvlib
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
# From the checkout: sbatch rvlib/accelerate/slurm.sh RECIPE --folder A_FOLDER_THAT_ALL_NODES_SEE
# CONFIG=rvlib/accelerate/zero3.yaml in the environment: by DeepSpeed in place of FSDP2.
# sbatch --array=1-8 --nodes=1 --gpus-per-node=1 rvlib/accelerate/slurm.sh RECIPE --folder …: eight jobs share the trainings
# by policy gradient; the first to come does the stages before them, and the last to end writes the report.
# A job that was cut off or requeued goes on from its last checkpoint, on as many nodes as it then has.
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) PORT=$((20000 + SLURM_JOB_ID % 10000))
[ -z "$SLURM_ARRAY_TASK_ID" ] || \
    set -- "$@" --part "$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN + 1))/$SLURM_ARRAY_TASK_COUNT"
export HEAD PORT CONFIG=${CONFIG:-rvlib/accelerate/fsdp2.yaml}
srun --kill-on-bad-exit bash -c 'exec accelerate launch --config_file "$CONFIG" \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --num_processes $((SLURM_NNODES * SLURM_GPUS_ON_NODE)) \
    --main_process_ip "$HEAD" --main_process_port "$PORT" -m rvlib run "$@"' rvlib "$@"
