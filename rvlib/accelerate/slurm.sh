#!/bin/bash
#SBATCH --job-name=rvlib
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --requeue
# From the checkout: sbatch rvlib/accelerate/slurm.sh RECIPE --folder A_FOLDER_THAT_ALL_NODES_SEE
# CONFIG=rvlib/accelerate/zero3.yaml in the environment: by DeepSpeed in place of FSDP2.
# A job that was cut off or requeued goes on from its last checkpoint, on as many nodes as it then has.
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1) PORT=$((20000 + SLURM_JOB_ID % 10000))
export HEAD PORT CONFIG=${CONFIG:-rvlib/accelerate/fsdp2.yaml}
srun --kill-on-bad-exit bash -c 'exec accelerate launch --config_file "$CONFIG" \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --num_processes $((SLURM_NNODES * SLURM_GPUS_ON_NODE)) \
    --main_process_ip "$HEAD" --main_process_port "$PORT" -m rvlib run "$@"' rvlib "$@"
