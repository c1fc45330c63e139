"""Names that a configuration of a stranger may try, with arguments that leave a trace where they run."""

from pathlib import Path
from typing import Any


def payloads(canary: Path) -> dict[str, dict[str, Any]]:
    """Return name -> a node whose target would make ``canary``, or do something else that nobody asked for."""
    touch, text = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    nodes: dict[str, dict[str, Any]] = {}

    def add(target: Any, *words: Any, name: str = "", **values: Any) -> None:
        nodes[name or str(target)] = {"_target_": target, "_args_": list(words), **values}

    for target in ("os.system", "posix.system", "os.popen", "subprocess.getoutput", "pty.spawn", "commands.getoutput",
                   "logging.os.system", "shutil.os.system", "platform.popen", "torch.os.system",
                   "hydra.utils.os.system",
                   "segexp.files.os.system", "segexp.cli.os.system", "segexp.data.cache.os.system",
                   "segexp.methods.siamese.vgg.torch.os.system", "segexp.runs.provenance.subprocess.getoutput",
                   "pytorch_lightning.trainer.trainer.os.system", "torch.optim.adam.torch.os.system"):
        add(target, touch)
    for target in ("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output",
                   "asyncio.create_subprocess_shell", "os.execvp", "os.spawnlp"):
        add(target, ["touch", str(canary)])
    for target in ("eval", "exec", "builtins.eval", "builtins.exec", "builtins.compile", "timeit.timeit",
                   "timeit.repeat", "cProfile.run", "code.interact", "codeop.compile_command", "runpy._run_code",
                   "doctest.debug_src", "pdb.run", "trace.Trace.run", "builtins.__import__", "ast.literal_eval"):
        add(target, f"__import__('os').system({touch!r})" if "compile" not in target else text)
    for target in ("open", "builtins.open", "io.open", "codecs.open", "gzip.open", "pathlib.Path.touch",
                   "pathlib.Path.write_text", "os.mkdir", "os.open", "tempfile.NamedTemporaryFile", "shelve.open",
                   "dbm.open", "sqlite3.connect", "zipfile.ZipFile", "tarfile.open", "logging.FileHandler",
                   "torch.save", "numpy.save", "pandas.read_pickle", "segexp.files.write_text",
                   "segexp.files.write_json", "segexp.files.written_whole"):
        add(target, str(canary), "w")
    for target in ("shutil.copyfile", "shutil.copy", "shutil.move", "os.rename", "os.symlink", "os.link"):
        add(target, __file__, str(canary))
    for target in ("shutil.rmtree", "os.remove", "webbrowser.open", "urllib.request.urlopen", "torch.load",
                   "numpy.load", "pickle.load", "pickle.loads", "dill.loads", "joblib.load", "marshal.loads",
                   "yaml.unsafe_load", "yaml.load", "torch.hub.load", "torch.hub.load_state_dict_from_url",
                   "torch.jit.load", "torch.package.PackageImporter", "torch.utils.cpp_extension.load",
                   "torch.ops.load_library",
                   "torch.classes.load_library", "monai.bundle.run", "monai.bundle.ConfigParser",
                   "importlib.import_module", "importlib.reload", "ctypes.CDLL", "imp.load_source",
                   "zipimport.zipimporter", "multiprocessing.Process", "threading.Thread", "socket.create_connection"):
        add(target, str(canary))
    for target in ("functools.partial", "functools.reduce", "operator.methodcaller", "operator.attrgetter", "map",
                   "builtins.map", "builtins.getattr", "builtins.setattr", "types.FunctionType", "itertools.starmap",
                   "hydra.utils.call", "hydra.utils.instantiate", "hydra.utils.get_method", "hydra.utils.get_object",
                   "hydra._internal.utils._locate", "hydra.compose", "omegaconf.OmegaConf.save",
                   "omegaconf.OmegaConf.register_new_resolver", "segexp.config.instantiate",
                   "segexp.config.targets.find"):
        add(target, {"_target_": "os.system", "_args_": [touch]})
    for target in ("segexp.cli.main", "segexp.runs.training.train", "segexp.runs.directory.Run",
                   "segexp.runs.loggers.Guarded", "segexp.runs.launch.work", "segexp.runs.loggers.csv",
                   "segexp.runs.loggers.tensorboard", "segexp.runs.loggers.wandb", "segexp.phantoms.wmh.write",
                   "segexp.phantoms.ukbiobank.write", "segexp.commands.train.run", "segexp.reports.page.write_run_page",
                   "segexp.data.nifti.write_labels", "segexp.data.cache.write_json", "segexp.methods.siamese.vgg.read",
                   "segexp.methods.siamese.vgg.downloaded", "segexp.data.splits.split_persons",
                   "segexp.runs.callbacks.write_json", "segexp.runs.callbacks.written_whole",
                   "segexp.sweeps.local.start", "segexp.exports.export.export"):
        add(target, str(canary))
    for target in ("segexp.losses.Dice.__class__", "segexp.losses.Dice.__init__.__globals__",
                   "segexp.losses.__loader__", "segexp.losses.Dice.__subclasses__",
                   "segexp.data.labelmap.LabelMap.from_mapping", "segexp.data.store.StoredImage.__reduce__",
                   "segexp.data._HOME.get", "segexp.__builtins__.open",
                   "segexp.losses.overlap.torch.load", "segexp.data.cases.Mapping", "segexp.metrics.scorer.Sequence",
                   "segexp.inference.slabs.nn.Module.__init__", "segexp..losses.Dice", "segexp.losses.Dice ",
                   " os.system", "segexp/losses/Dice", "segexp.losses.\nos.system", "segexp.\u006cosses\u200b.Dice",
                   "ｓegexp.losses.Dice", "os.system#segexp.", "", ".", "segexp", "torch", "a" * 100_000, 5, None, True,
                   ["os.system"], {"_target_": "os.system"}, b"os.system"):
        add(target, touch, name=f"{type(target).__name__} {str(target)[:60]!r}")
    return nodes
