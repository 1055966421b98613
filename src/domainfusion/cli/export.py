"""`domainfusion export`: a run's data for other trainers, and its student for other programs."""

from __future__ import annotations

import argparse
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainfusion.wording import counted

if TYPE_CHECKING:
    from domainfusion.cli.terminal import Terminal

_DATA = ("messages", "prompt-completion", "sharegpt")
_MODELS = ("transformers", "gguf", "adapter")
_DTYPES = {
    "transformers": ("float32", "bfloat16", "float16"),
    "gguf": ("f32", "f16", "bf16", "q8_0"),
}
_DESCRIPTION = """Write a run's data or its student for other programs.

data (JSON Lines; rejected records and answers that were cut are left out):
  messages           for TRL, LLaMA-Factory and Axolotl
  prompt-completion  for TRL, which then trains on the answers alone
  sharegpt           for LLaMA-Factory
models:
  transformers       the whole model in a folder, in the numbers of --dtype
  gguf               one file for llama.cpp, with a Modelfile for Ollama
  adapter            the student's LoRA adapter, as `vllm serve --lora-modules` takes it

--hub uploads a model to the Hugging Face hub, to a private repository where it makes one."""


def add_to(verbs: Any, shared: argparse.ArgumentParser) -> None:
    """Adds the verb to the parser."""
    parser = verbs.add_parser(
        "export",
        parents=[shared],
        help="write a run's data or its student for other programs",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "directory",
        type=Path,
        metavar="RUN",
        help="the directory of a run; for transformers and gguf also the folder of a model",
    )
    parser.add_argument(
        "--format",
        choices=(*_DATA, *_MODELS),
        help="which format (default: messages, and transformers with --hub)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="PATH",
        help="the file or folder to write (default: RUN/export-FORMAT…)",
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="numbers of the weights (default: those of the base): "
        + "; ".join(f"{name}: {', '.join(types)}" for name, types in _DTYPES.items()),
    )
    parser.add_argument(
        "--hub", metavar="OWNER/NAME", help="upload the model there; the token is that of HF_TOKEN"
    )
    parser.add_argument(
        "--public", action="store_true", help="with --hub: everybody may read a new repository"
    )
    parser.set_defaults(run=run, misused=parser.error)


def run(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Writes the files, and says what takes them."""
    kind = arguments.format or ("transformers" if arguments.hub else "messages")
    if kind in _DATA and (arguments.hub or arguments.dtype):
        word = "--hub" if arguments.hub else "--dtype"
        arguments.misused(f"argument {word}: goes with a model, not with --format {kind}")
    if arguments.dtype and arguments.dtype not in _DTYPES.get(kind, ()):
        allowed = ", ".join(_DTYPES.get(kind, ())) or "none, as an adapter stays as it is"
        arguments.misused(
            f"argument --dtype: invalid choice: {arguments.dtype!r} with --format {kind} (choose"
            f" from {allowed})"
        )
    if arguments.public and not arguments.hub:
        arguments.misused("argument --public: goes with --hub")
    if kind in _DATA:
        _write_data(kind, arguments, terminal)
        return
    write = {"transformers": _write_model, "gguf": _write_gguf, "adapter": _write_adapter}[kind]
    if arguments.hub:
        from domainfusion.models import push_to_hub
        from domainfusion.models.publishing import check_hub_name

        check_hub_name(arguments.hub)
    folder = write(arguments, terminal)
    if arguments.hub:
        terminal.say(f"Uploading {folder} …")
        address = push_to_hub(folder, arguments.hub, public=arguments.public)
        terminal.print(f"On the hub: {address}")


def _write_data(kind: Any, arguments: argparse.Namespace, terminal: Terminal) -> None:
    from domainfusion.cli.runs import check_run, recipe_of
    from domainfusion.distillation.export import export_messages
    from domainfusion.distillation.refinement import trained_records
    from domainfusion.distillation.run import RunFiles
    from domainfusion.errors import RunError

    directory = check_run(arguments.directory)
    if not RunFiles(directory).records.is_file():
        raise RunError(
            "This run has no records yet",
            received=str(directory),
            fix="run it until `integrate` at least",
        )
    recipe = recipe_of(directory)
    output = arguments.output or directory / f"export-{kind}.jsonl"
    exported = export_messages(
        trained_records(directory),
        output,
        format=kind,
        system_prompt=recipe.student.system_prompt if recipe else None,
    )
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in exported.left_out.items())
    terminal.print(
        f"{counted(exported.written, 'row')} in {output}"
        + (f"; left out: {left_out}" if left_out else "")
    )


def _write_model(arguments: argparse.Namespace, terminal: Terminal) -> Path:
    """Writes the whole model; without other numbers or another place, what was saved is taken."""
    from domainfusion.models import HuggingFaceModel

    saved, _ = _saved_model(arguments.directory)
    if not (arguments.dtype or arguments.output) and arguments.hub:
        return saved
    folder: Path = arguments.output or arguments.directory / "export-transformers"
    _check_new(folder)
    # Read in the widest numbers, it is rounded once.
    model = HuggingFaceModel(saved, dtype="float32", device="cpu")
    model.save(folder, dtype=arguments.dtype or "auto")
    if (saved / "README.md").is_file():
        shutil.copy(saved / "README.md", folder)
    terminal.print(f"The model is in {folder}")
    return folder


def _write_gguf(arguments: argparse.Namespace, terminal: Terminal) -> Path:
    from domainfusion.errors import ConfigurationError
    from domainfusion.models import write_gguf, write_modelfile

    saved, system_prompt = _saved_model(arguments.directory)
    name = _name_of(arguments.directory)
    file = arguments.output or arguments.directory / "export-gguf" / f"{name}.gguf"
    if file.is_dir():
        raise ConfigurationError(
            "GGUF is one file, and this is a folder",
            received=str(file),
            fix=f"give --output {shlex.quote(str(file / name))}.gguf",
        )
    file = write_gguf(saved, file, dtype=arguments.dtype or "auto", name=name)
    modelfile = write_modelfile(saved, file, system_prompt=system_prompt)
    if (saved / "README.md").is_file():
        shutil.copy(saved / "README.md", file.parent)
    terminal.print(f"{file} ({file.stat().st_size / 1e6:,.0f} MB) and {modelfile.name}")
    terminal.print(f"llama.cpp:  llama-server -m {shlex.quote(str(file))} --jinja")
    terminal.print(f"Ollama:     ollama create {name} -f {shlex.quote(str(modelfile))}")
    return file.parent


def _write_adapter(arguments: argparse.Namespace, terminal: Terminal) -> Path:
    """Writes the adapter that a run trained; its models are built again, and asked nothing."""
    from domainfusion.cli.runs import check_run, rebuild
    from domainfusion.errors import CapabilityError
    from domainfusion.models import write_vllm_adapter
    from domainfusion.models.base import AdapterModel

    directory = check_run(arguments.directory)
    _saved_model(directory)
    folder: Path = arguments.output or directory / "export-adapter"
    _check_new(folder)
    distiller = rebuild(directory, progress=terminal.progress)
    with distiller.hold():
        distiller.train(distiller.integrate(distiller.collect(distiller.generate())))
        if distiller.settings.refinement_rounds:
            distiller.refine()
    student = distiller.student
    base = distiller.student_model
    if not (isinstance(student, AdapterModel) and student.is_adapter_on(base)):
        raise CapabilityError(
            "The student of this run is not an adapter on its own base",
            received=str(directory),
            fix="use --format transformers or --format gguf",
        )
    with tempfile.TemporaryDirectory() as place:
        distiller.save(Path(place) / "adapter", merge=False)
        served = write_vllm_adapter(Path(place) / "adapter", folder)
    terminal.print(f"The adapter is in {folder} (rank {served.rank})")
    terminal.print(f"vLLM:  {served.command('student')}")
    return folder


def _saved_model(directory: Path) -> tuple[Path, str | None]:
    """Returns the folder of the student that a run saved, or of a model, and its system prompt."""
    from domainfusion.cli.runs import saved_student
    from domainfusion.distillation.run import RunFiles, read_description
    from domainfusion.errors import RunError

    run = RunFiles(directory)
    if not run.description.is_file():
        if (directory / "config.json").is_file():
            return directory, None
        raise RunError(
            "This is neither the directory of a run nor the folder of a saved model",
            received=str(directory),
            fix="name the directory that the run printed",
        )
    return saved_student(directory), read_description(run).student.system_prompt


def _name_of(directory: Path) -> str:
    """Returns a name that Ollama takes: small letters, digits, dots and dashes."""
    plain = (letter if letter.isascii() and letter.isalnum() else "-" for letter in directory.name)
    return "".join(plain).strip("-").lower() or "student"


def _check_new(folder: Path) -> None:
    from domainfusion.errors import ConfigurationError

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(
            "There is something in the folder that the model would be written to",
            received=str(folder),
            fix="remove it, or give another one with --output",
        )
