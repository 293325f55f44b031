#!/bin/bash
# Arguments of Megatron-LM, to be sourced:
#   source megatron.sh
#   ./torchrun.sh pretrain_gpt.py "${MEGATRON[@]}" TOKENIZER, DATA, LEARNING RATE...
# under Slurm: source it, then `sbatch slurm.sh torchrun pretrain_gpt.py ...`. What the
# plan does not decide (tokenizer, data, learning rate, checkpoints) is left to you.
#
# Job job-1 of "one job": 48 ranks, dp2,tp8,pp3,zero1,sp.
export CUDA_DEVICE_MAX_CONNECTIONS=1
MEGATRON=(
    --tensor-model-parallel-size 8
    --pipeline-model-parallel-size 3
    --context-parallel-size 1
    --expert-model-parallel-size 1
    --sequence-parallel
    --decoder-first-pipeline-num-layers 14
    --micro-batch-size 1
    --global-batch-size 16
    --seq-length 8192
    --use-distributed-optimizer
    --overlap-grad-reduce
    --overlap-param-gather
    --num-layers 32
    --hidden-size 4096
    --ffn-hidden-size 14336
    --num-attention-heads 32
    --kv-channels 128
    --group-query-attention
    --num-query-groups 8
    --max-position-embeddings 8192
    --position-embedding-type rope
    --normalization RMSNorm
    --swiglu
    --disable-bias-linear
    --untie-embeddings-and-output-weights
    --bf16
)
