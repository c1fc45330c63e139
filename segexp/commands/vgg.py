"""``segexp vgg``: the ImageNet weights of the Siamese content loss."""

SUMMARY = "cut the ImageNet weights that the Siamese loss needs out of a file of VGG19"
HELP = """\
usage: segexp vgg extract [FILE] [output=FOLDER] [sha256=DIGITS]

Copies the first eight tensors (1 MB) out of torchvision's file of VGG19 (548 MB), for machines without a network.
Prints where the copy is and the words that train with it.

  segexp vgg extract                                  torchvision's file, downloaded if it is not in its cache
  segexp vgg extract vgg19-dcbb9e9d.pth output=weights

keys:
  output=FOLDER     default: outputs/weights
  sha256=DIGITS     what the SHA-256 of FILE begins with; default: the digits at the end of its name
"""
WORDS = ("extract",)
KEYS = ("output", "sha256")


def run(arguments: list[str]) -> None:
    """Write the copy and say how to use it."""
    from pathlib import Path

    from segexp.config.names import hint
    from segexp.console import say
    from segexp.errors import ConfigError
    from segexp.files import sha256, written_whole
    from segexp.methods.siamese.vgg import cut_down, downloaded

    words = [word for word in arguments if "=" not in word]
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    for key in options:
        if key not in KEYS:
            raise ConfigError(f"segexp vgg extract: there is no key {key!r}{hint(key, KEYS)}")
    if words[:1] != ["extract"]:
        raise ConfigError(f"segexp vgg {' '.join(words)}: there is no such action{hint(' '.join(words[:1]), WORDS)}")
    if len(words) > 2:
        raise ConfigError(f"segexp vgg extract takes one FILE, not {', '.join(words[1:])}")
    source = Path(words[1]) if len(words) == 2 else downloaded()
    name, content = cut_down(source, options.get("sha256"))
    target = Path(options.get("output", "outputs/weights")) / name
    with written_whole(target) as temporary:
        temporary.write_bytes(content)
    say(f"{target}: the front of VGG19, {len(content) / 1e6:.1f} MB, SHA-256 {sha256(target)}")
    say(f"train with it: loss.weights=file loss.weights_file={target}")
