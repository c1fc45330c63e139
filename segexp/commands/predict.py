"""``segexp predict``: label maps for new images."""

import re

SUMMARY = "write label maps of new images on their own grid, as BIDS derivatives"
HELP = """\
usage: segexp predict run=RUN input=FILE_OR_FOLDER output=FOLDER [KEY=VALUE ...]

Labels NIfTI images with a finished run. Every label map lies on its source file's grid and affine, in the native
values of its tool, and is named and described as a BIDS derivative:
  FOLDER/sub-<label>/anat/sub-<label>_space-orig_desc-<target>_dseg.nii.gz   (+ .json with hashes of what made it)
  FOLDER/desc-<target>_dseg.tsv, FOLDER/dataset_description.json
  FOLDER/volumes.csv   voxels and ml of every structure of every image (volumes_partial.csv while images are missing)
  FOLDER/quarantine/, FOLDER/quarantine.csv   images that could not be used, with the reason

What is already there and still valid, by its hashes, is skipped. An image that cannot be used never stops the others
(exit code 4); it is tried again when it, the weights or the configuration change, or with retry=quarantined. The same
command may run any number of times at once on the same folder, on one machine or several: each takes subjects that no
other has, also those of workers that died. The files are the same bytes for any number of workers and shards.

  segexp predict run=nn_all-seed1 input=head.nii.gz output=derivatives
  segexp predict run=nn_all-seed1 input=/data/heads output=derivatives targets=[fsl_fast] device=cpu
  segexp predict run=nn_all-seed1 input=/data/ukb pattern=T1.nii.gz output=derivatives
  segexp predict run=fcn_ppm-seed1 input=/data/ct output=derivatives \\
    data/roi=lowres data.roi.run=outputs/runs/kidney_ppm/localizer-seed1
  segexp predict run=nn_all-seed1 input=/data/ukb output=derivatives pattern=T1.nii.gz shard=3/16
  segexp predict run=nn_all-seed1 input=/data/ukb output=derivatives pattern=T1.nii.gz merge=true

keys:
  targets=[a,b]        only these label maps (default: every one of the run)
  pattern=GLOB         which files below an input folder are images (default: *.nii*), such as T1.nii.gz, FLAIR.nii.gz
                       or imaging.nii.gz in folders that hold other images or label maps too
  inference=NAME       another option of the group `inference` than the run's own
  data/roi=NAME        whole CTs: where their regions come from, see `segexp list data/roi`
  device=auto          auto, cpu, cuda or mps
  shard=3/16           only the third of 16 parts of the subjects (1/16 to 16/16): a subject's part depends on its
                       label alone, and all its images are in the same one
  merge=true           label nothing: write the tables of what is there, say what is missing (exit code 4)
  retry=quarantined    try images in quarantine again
  verify=full          hash every file again (default: quick, which trusts those whose size, times and inode are
                       as they were when their hashes were verified)
  readers=1 writers=1 ahead=2   threads that read ahead and write behind, images in each queue between them;
                       readers=0: one after the other
  expiry=120           seconds without a sign of life after which a worker on another machine is taken for dead
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
    from segexp.predictions.predict import Settings, predict

    predict(trained, source, output, targets=options.targets, pattern=options.pattern, device=options.device,
            changes=named, allow=flags.allow, config_dirs=flags.config_dirs, settings=Settings.of(options))
