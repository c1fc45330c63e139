"""``segexp phantom``: synthetic data in a data set's real layout."""

SUMMARY = "write synthetic data in a data set's real layout"
HELP = """\
usage: segexp phantom data=ukbiobank [scale=demo] [output=FOLDER] [KEY=VALUE ...]

Writes synthetic heads with the files, names and label values of UK Biobank. Each tool's maps have its habits; some
heads are rotated, some tools fail on them, some subjects are broken. The truth lies beside the tree, in truth/.
The same line again finds everything there; an interrupted one goes on.

  segexp phantom data=ukbiobank scale=demo
  segexp phantom data=ukbiobank scale=smoke output=heads data.layout=flat
  segexp phantom data=ukbiobank scale=demo output=real_heads anatomy=FOLDER

keys:
  scale=smoke|demo|paper   8 tiny heads, 43 at 2.5 mm, 50 at 1 mm (plus 5 broken subjects each)
  output=FOLDER            default: outputs/phantoms/<data>_<scale>, where that scale's experiments look
  anatomy=FOLDER           heads from real label maps (FreeSurfer numbering) instead of ellipsoids
  data.layout=bulk|flat    UK Biobank's own folders, or one flat folder per subject
  phantom.KEY=VALUE        subjects, broken, seed, profile, rotated, spm_failure, first_failure, n_parcels
"""


def run(arguments: list[str]) -> None:
    """Write the tree and say what to type next."""
    from segexp.config import compose, instantiate
    from segexp.config.flags import split_flags
    from segexp.console import say

    flags = split_flags(arguments)
    config = compose("phantom", list(flags.overrides), flags.config_dirs)
    root = instantiate(config.phantom, allow=flags.allow)
    derived = f" data.derived_root={root.parent / 'derived'}" if config.data.layout == "bulk" else ""
    layout = "" if config.data.layout == "bulk" else f" data.layout={config.data.layout}"
    say(f"synthetic heads in {root}, their truth in {root.parent / 'truth'}\n"
        f"next: segexp check data=ukbiobank data.root={root}{derived}{layout}")
