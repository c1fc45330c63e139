"""``segexp export``: a finished run for other programs."""

SUMMARY = "write a finished run as safetensors, ONNX or a MONAI bundle, and check what was written"
HELP = """\
usage: segexp export run=RUN format=safetensors|onnx|monai_bundle [output=FOLDER] [size=[D,H,W]]

Writes the network of a finished run for other programs. What was written is read back and compared with the run's
network before it counts; where it differs, nothing is kept. The same line again verifies the files and says that they
are there. Of adversarial methods only the network that labels images is exported.

  safetensors    weights without code, and model.json: configuration, label maps, how images are scaled
  onnx           the network as a graph, logits out; needs the extra segexp[onnx]
  monai_bundle   configs, weights and the code of the network and its inference: runs where segexp is not installed

  segexp export run=nn_all-seed1 format=safetensors
  segexp export run=nn_all-seed1 format=onnx
  segexp export run=fcn_ppm-seed1 format=onnx size=[150,150,64]
  segexp export run=nn_all-seed1 format=monai_bundle output=bundles/nn_all

keys:
  output=FOLDER    default: <run>/exports/<format>
  size=[D,H,W]     onnx: fix the sizes of the input; else they are free where the network permits (model.json says
                   which sizes it takes)
"""
OWN = ("run", "format", "output", "size", "paths.outputs")


def run(arguments: list[str]) -> None:
    """Export the run and say how close the export is."""
    from omegaconf import OmegaConf

    from segexp.commands.evaluate import required
    from segexp.config import compose
    from segexp.config.flags import split_flags
    from segexp.console import say
    from segexp.exports.export import export
    from segexp.runs.directory import get_run

    flags = split_flags(arguments)
    options = compose("export", flags.overrides, flags.config_dirs)
    trained = get_run(options.paths.outputs, required(options, "run"))
    size = OmegaConf.to_container(options.size) if OmegaConf.is_config(options.size) else options.size
    folder, record, happened = export(trained, required(options, "format"), options.output, size, flags.allow)
    if happened == "there":
        say(f"{trained.id}: {record['format']} is there already and every file is as it was written")
    else:
        say(f"{trained.id}: {record['format']} {happened}")
    say(f"  {told(record['parity'])}")
    say(f"in {folder}")


def told(parity: dict) -> str:
    """Return what the check found, in a line."""
    exact = not parity["max_abs_difference"]
    text = "logits bit for bit" if exact else f"logits within {parity['max_abs_difference']:.2g}"
    sizes = parity.get("sizes")
    return (f"checked: {text}, {parity['label_agreement']:.4%} of the labels the same"
            + (f"; sizes: {', '.join(map(str, sizes))}" if sizes else ""))
