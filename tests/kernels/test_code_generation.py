"""What the kernels compile to for GPUs that are not here: integer tensor cores, asynchronous copies, no spills."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

POINTERS = {
    **dict.fromkeys(("codes", "weight", "border"), "*i8"),
    **dict.fromkeys(("partial", "partial_rows"), "*i32"),
    **dict.fromkeys(
        ("scale", "bias", "means", "squares", "rows_factor", "gain", "shift", "delta", "phi", "grid"), "*fp32"
    ),
    **dict.fromkeys(("out", "down", "left", "residual", "x", "values"), "*fp16"),
}
SHAPE = {"C": 256, "KH": 3, "KW": 3, "SH": 1, "SW": 1, "PH": 1, "PW": 1, "DH": 1, "DW": 1, "SPLITS": 1, "GROUP": 8}
PARTS = {"POINTWISE": False, "BORDER": False, "ROWS": False, "PER_IMAGE": False, "RESIDUAL": True}
TILE = {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 128, "RANK": 16, "RANK_BLOCK": 16}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, constants: dict[str, Any], capability: int, types: dict[str, str], **options: Any) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not hasattr(kernel, "arg_names") or triton.knobs.runtime.interpret:
        pytest.skip("Triton interprets here")
    signature = {
        name: "constexpr" if name in constants else types.get(name) or POINTERS.get(name, "i32")
        for name in kernel.arg_names
    }
    aligned: Any = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name][0] == "*"
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    try:
        return triton.compile(
            source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False, **options}
        )
    except (FileNotFoundError, RuntimeError) as error:
        if "ptxas" in str(error):
            pytest.skip("ptxas is not here")
        raise


@pytest.mark.parametrize(
    ("capability", "instruction"),
    [(80, r"mma\.sync\.aligned\.m16n8k32\S*\.s32\.s8\.s8\.s32"), (90, r"wgmma\.mma_async\S*\.m64n128k32\.s32\.s8\.s8")],
    ids=["sm_80", "sm_90"],
)
def test_the_product_runs_on_integer_tensor_cores(capability: int, instruction: str, tmp_path: Path) -> None:
    from qartsr.kernels import device

    made = compiled(device.product, SHAPE | PARTS | TILE, capability, {}, num_warps=8, num_stages=3)
    assert re.search(instruction, made.asm["ptx"])
    assert "cp.async" in made.asm["ptx"]
    assert local_bytes(made.asm["cubin"], tmp_path) == 0


def test_the_quantization_reads_and_writes_wide_and_divides_correctly(tmp_path: Path) -> None:
    from qartsr.kernels import device

    constants = {"C": 256, "ACTIVATED": True, "KEEP": True, "BASIS": True, "BLOCK_M": 16, "BLOCK_C": 128}
    made = compiled(device.quantize, constants, 90, {"levels": "fp32"})
    assert "div.rn.f32" in made.asm["ptx"]
    assert re.search(r"ld\.global\S*\.v4", made.asm["ptx"])
    assert local_bytes(made.asm["cubin"], tmp_path) == 0


PER_GROUP = {"C": 320, "GROUPS": 32, "CHUNK": 512, "BLOCK_M": 64, "BLOCK_C": 16, "chunks": 1}


@pytest.mark.parametrize(
    ("name", "constants", "types"),
    [
        ("unpack", {"C": 128, "TAPS": 9, "BITS": 3, "BLOCK": 1024}, {"stream": "*u8", "zero": "*i32"}),
        ("moments", {"C": 128, "CHUNK": 512, "BLOCK_M": 32, "BLOCK_C": 128}, {}),
        ("normaliser", PER_GROUP, {"weight": "*fp16", "bias": "*fp16", "eps": "fp32"}),
        ("gather", SHAPE | PARTS | TILE | {"BLOCK_M": 32, "BLOCK_N": 64, "SPLITS": 4}, {}),
    ],
    ids=["unpack", "moments", "normaliser", "gather"],
)  # fmt: skip
def test_the_others_compile(name: str, constants: dict[str, Any], types: dict[str, str], tmp_path: Path) -> None:
    """A number that is 1 is a constant to Triton: ``chunks`` here."""
    kernel = getattr(importlib.import_module("qartsr.kernels.device"), name)
    known = {key: value for key, value in constants.items() if key in kernel.arg_names}
    assert local_bytes(compiled(kernel, known, 90, types).asm["cubin"], tmp_path) == 0


def local_bytes(binary: bytes, folder: Path) -> int:
    """Registers spilled to memory, in bytes per thread."""
    spec = importlib.util.find_spec("triton")
    assert spec is not None and spec.origin is not None
    tool = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("cuobjdump is not here")
    (folder / "kernel.cubin").write_bytes(binary)
    usage = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True)
    found = re.search(r"STACK:(\d+).*LOCAL:(\d+)", usage.stdout)
    assert found is not None, usage.stdout
    return int(found[1]) + int(found[2])
