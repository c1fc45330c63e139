"""``segexp predict``: label maps for new images."""

import re

SUMMARY = "write label maps of new images on their own grid, as BIDS derivatives"
HELP = """\
usage: segexp predict run=RUN input=FILE_OR_FOLDER output=FOLDER [KEY=VALUE ...]

Labels NIfTI images with a finished run. Every label map lies on its source file's grid and affine, in the native
values of its tool, and is named and described as a BIDS derivative:
  FOLDER/sub-<label>/anat/sub-<label>_space-orig_desc-<target>_dseg.nii.gz   (+ .json with hashes of what made it)
  FOLDER/desc-<target>_dseg.tsv, FOLDER/dataset_description.json
What is already there and still valid is skipped. An image that cannot be used is named at the end; the others are
done all the same (exit code 4).

  segexp predict run=nn_all-seed1 input=head.nii.gz output=derivatives
  segexp predict run=nn_all-seed1 input=/data/heads output=derivatives targets=[fsl_fast] device=cpu
  segexp predict run=nn_all-seed1 input=/data/ukb pattern=T1.nii.gz output=derivatives
  segexp predict run=fcn_ppm-seed1 input=/data/ct output=derivatives \\
    data/roi=lowres data.roi.run=outputs/runs/kidney_ppm/localizer-seed1

keys:
  targets=[a,b]        only these label maps (default: every one of the run)
  pattern=GLOB         which files below an input folder are images (default: *.nii*), such as T1.nii.gz, FLAIR.nii.gz
                       or imaging.nii.gz in folders that hold other images or label maps too
  inference=NAME       another option of the group `inference` than the run's own
  data/roi=NAME        whole CTs: where their regions come from, see `segexp list data/roi`
  device=auto          auto, cpu, cuda or mps
"""


def run(arguments: list[str]) -> None:
    """Label every image and report what could not be done."""
    from segexp.commands.evaluate import required
    from segexp.config import compose
    from segexp.config.flags import split_flags
    from segexp.runs.directory import get_run

    flags = split_flags(arguments)
    # These change the run's configuration: this command has no keys of that name.
    named = [word for word in flags.overrides if re.match("(inference|data)[./=]", word)]
    own = [word for word in flags.overrides if word not in named]
    options = compose("predict", own, flags.config_dirs)
    source, output = required(options, "input"), required(options, "output")
    trained = get_run(options.paths.outputs, required(options, "run"))
    from segexp.predictions.predict import predict

    predict(trained, source, output, targets=options.targets, pattern=options.pattern, device=options.device,
            changes=named, allow=flags.allow, config_dirs=flags.config_dirs)
