#!/usr/bin/env python3
"""Gives the launch files of a plan to the programs that they are for.

    launch_check.py PLAN_DIR...        folders of `laggard plan -o PLAN_DIR`

torchrun starts the ranks of each job of up to 64, all hosts on this machine, and each rank must be
where the table says. Megatron-LM's own classes read its arguments, and must build the layers of
each stage that the plan has. Kubernetes' schemas must accept its files, without unknown fields.
Needs PyPI's torch, megatron-core and kubernetes-validate.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

MOST_RANKS = 64
PATIENCE_S = 120


def main():
    folders = [Path(it) for it in sys.argv[1:]]
    if not folders or any(str(it).startswith("-") for it in folders):
        sys.exit(__doc__.strip())
    checks = (check_torchrun, check_megatron, check_kubernetes)
    failed = 0
    for folder in folders:
        plan = json.loads((folder / "plan.json").read_text())
        for job in sorted(it for it in folder.glob("launch/*") if it.is_dir()):
            planned = planned_job(plan, job)
            for check in checks:
                try:
                    said = check(job, planned)
                except (AssertionError, subprocess.SubprocessError) as error:
                    failed += 1
                    said = f"FAIL: {error}"
                print(f"{folder.name}/{job.name} {check.__name__[6:]}: {said}", flush=True)
    sys.exit(1 if failed else 0)


def planned_job(plan, job):
    """The job of the plan whose launch files these are; `--option` may have chosen another one."""
    heading = next(line for line in (job / "nodes.tsv").read_text().splitlines() if " of " in line)
    option = next(it for it in plan["options"] if f'"{it["name"]}"' in heading)
    return next(it for it in option["jobs"] if it["name"] == job.name)


def table(job):
    """Agents: number, host, first rank, ranks, first device."""
    lines = (job / "nodes.tsv").read_text().splitlines()
    cells = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(int(it[0]), it[1], int(it[4]), int(it[5]), int(it[6])) for it in cells]


def check_torchrun(job, _planned):
    agents = table(job)
    ranks = sum(it[3] for it in agents)
    if ranks > MOST_RANKS:
        return f"not run: {ranks} ranks"
    # Agents that are still starting need the first one, which ends with its ranks.
    say = "echo $RANK $WORLD_SIZE $LOCAL_RANK $CUDA_VISIBLE_DEVICES; sleep 10"
    command = ["bash", str(job / "torchrun.sh"), "--no-python", "sh", "-c", say]
    # One of these starts all agents of its host.
    hosts = dict.fromkeys(it[1] for it in agents)
    usual = dict(os.environ, MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")
    start = lambda host: subprocess.Popen(  # noqa: E731
        command, env=dict(usual, LAGGARD_HOST=host), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    started = [start(host) for host in hosts]
    found = set()
    try:
        for one in started:
            said, trouble = one.communicate(timeout=PATIENCE_S)
            assert one.returncode == 0, trouble[-2000:]
            found.update(said.splitlines())
    finally:
        for one in started:
            if one.poll() is None:
                os.killpg(one.pid, 9)
    expected = set()
    for _, _, first, count, device in agents:
        seen = ",".join(str(device + it) for it in range(count))
        expected.update(f"{first + it} {ranks} {it} {seen}" for it in range(count))
    assert found == expected, f"{sorted(found)} where {sorted(expected)} was planned"
    return f"pass: {ranks} ranks by {len(agents)} agents"


def check_megatron(job, planned):
    path = job / "megatron.sh"
    if not path.exists():
        return "not run: no file"
    line = f"source '{path}'; printf '%s\\0' \"${{MEGATRON[@]}}\""
    text = subprocess.run(["bash", "-c", line], capture_output=True, check=True, text=True)
    words = text.stdout.split("\0")[:-1]
    names = {}
    for word in words:
        if word.startswith("--"):
            names[word[2:]] = last = []
        else:
            last.append(word)
    stages = layers_by_megatron(names)
    parts = planned["parts"]
    if "stages" in parts:
        expected = [it["layers"] for it in parts["stages"]]
        assert stages == expected, f"{stages} where {expected} was planned"
    else:
        pieces = planned["degrees"]["pipeline"] * planned["degrees"]["virtual_stages"]
        assert len(stages) == pieces, f"{stages} where {pieces} pieces were planned"
        expected = planned.get("piece_layers") or stages
        assert stages == expected, f"{stages} where {expected} was planned"
    assert sum(stages) == int(names["num-layers"][0]), f"{stages}: not all layers"
    return f"pass: layers {stages}"


def layers_by_megatron(names):
    """Layers of each piece of the pipeline, in order, that Megatron-LM would build."""
    from megatron.core.transformer import transformer_block
    from megatron.core.transformer.pipeline_parallel_layer_layout import PipelineParallelLayerLayout
    from megatron.core.transformer.transformer_config import MLATransformerConfig, TransformerConfig

    number = lambda name: int(names[name][0]) if name in names else None  # noqa: E731
    stages, layers = number("pipeline-model-parallel-size"), number("num-layers")
    options = {
        "num_layers": layers,
        "hidden_size": number("hidden-size"),
        "ffn_hidden_size": number("ffn-hidden-size"),
        "num_attention_heads": number("num-attention-heads"),
        "num_query_groups": number("num-query-groups"),
        "num_moe_experts": number("num-experts"),
        "mtp_num_layers": number("mtp-num-layers"),
        "tensor_model_parallel_size": number("tensor-model-parallel-size"),
        "expert_model_parallel_size": number("expert-model-parallel-size"),
        "expert_tensor_parallel_size": number("expert-tensor-parallel-size"),
        "context_parallel_size": number("context-parallel-size"),
        "sequence_parallel": "sequence-parallel" in names,
        "add_bias_linear": "disable-bias-linear" not in names,
        "add_qkv_bias": "add-qkv-bias" in names,
        "gated_linear_unit": "swiglu" in names,
        "normalization": names["normalization"][0],
        "pipeline_model_parallel_size": stages,
        "num_layers_in_first_pipeline_stage": number("decoder-first-pipeline-num-layers"),
        "num_layers_in_last_pipeline_stage": number("decoder-last-pipeline-num-layers"),
        "recompute_granularity": names.get("recompute-granularity", [None])[0],
        "recompute_method": names.get("recompute-method", [None])[0],
        "recompute_num_layers": number("recompute-num-layers"),
        "pipeline_dtype": __import__("torch").bfloat16,
        "bf16": True,
    }
    text = names.get("pipeline-model-parallel-layout", [None])[0]
    virtual = None
    if text is not None:
        virtual = len(PipelineParallelLayerLayout.parse_str_to_list(text)) // stages
        options["pipeline_model_parallel_layout"] = text
    elif "num-layers-per-virtual-pipeline-stage" in names:
        virtual = layers // stages // number("num-layers-per-virtual-pipeline-stage")
    virtual = virtual if virtual and virtual > 1 else None
    options["virtual_pipeline_model_parallel_size"] = virtual
    latent = "multi-latent-attention" in names
    kind = MLATransformerConfig if latent else TransformerConfig
    if latent:
        options["multi_latent_attention"] = True
    config = kind(**options)
    build = transformer_block.get_num_layers_to_build
    if text is not None:
        layout = config.pipeline_model_parallel_layout
        build = lambda _config, vp_stage, pp_rank: layout.get_num_layers_to_build(  # noqa: E731
            vp_stage=vp_stage, pp_rank=pp_rank)
        set_virtual(virtual)
    pieces = [(piece, stage) for piece in range(virtual or 1) for stage in range(stages)]
    return [build(config, vp_stage=piece, pp_rank=stage) for piece, stage in pieces]


def set_virtual(virtual):
    from megatron.core import parallel_state

    parallel_state.set_virtual_pipeline_model_parallel_world_size(virtual)


def check_kubernetes(job, _planned):
    import kubernetes_validate
    import yaml

    path = job / "kubernetes.yaml"
    if not path.exists():
        return "not run: no file"
    documents = list(yaml.safe_load_all(path.read_text()))
    for document in documents:
        try:
            kubernetes_validate.validate(document, "1.31", strict=True)
        except kubernetes_validate.ValidationError as error:
            raise AssertionError(f"{document['kind']}: {error.message}") from error
    return f"pass: {len(documents)} documents"


if __name__ == "__main__":
    main()
