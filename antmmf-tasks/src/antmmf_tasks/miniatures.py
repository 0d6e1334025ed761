"""A small copy of each data set in the format of its release, with moving shapes for media: to try things anywhere.

The files have the names, fields and oddities of the real ones, and nothing of their content.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from antmmf.errors import DataError, did_you_mean
from numpy.typing import NDArray

from antmmf_tasks.datasets.shapes.language import Language, captions, transcript
from antmmf_tasks.datasets.shapes.questions import questions
from antmmf_tasks.datasets.shapes.render import render
from antmmf_tasks.datasets.shapes.world import Scene, make_scenes

SIZE, FPS, NUM_FRAMES = 64, 8, 32
_SECONDS = NUM_FRAMES / FPS
_SPLITS = ("train", "val", "test")


def write_miniature(name: str, folder: Path, *, num: int = 24, seed: int = 0) -> None:
    """Write ``num`` videos or pictures and the annotations of data set ``name`` to ``folder``. Raises ``DataError``."""
    if name not in _WRITERS:
        raise DataError(f"there is no miniature of {name!r}{did_you_mean(name, _WRITERS)}; of: {', '.join(_WRITERS)}")
    if num < len(_SPLITS) * 2:
        raise DataError(
            f"a miniature must have at least {len(_SPLITS) * 2} videos, so that each split has some; is {num}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[name](_World(folder, num, seed))


class _World:
    """The scenes, each with its split, and how they are written."""

    def __init__(self, folder: Path, num: int, seed: int) -> None:
        self.folder, self.num = folder, num
        self.scenes = make_scenes(num, split="train", seed=seed)[:num]

    def __iter__(self) -> Iterator[tuple[int, str, Scene]]:
        """Number, split and scene: two thirds are for training, the others in turn for val and test."""
        for number, scene in enumerate(self.scenes):
            yield number, "train" if number % 3 < 2 else _SPLITS[1 + number // 3 % 2], scene

    def of(self, split: str) -> list[tuple[int, Scene]]:
        return [(number, scene) for number, part, scene in self if part == split]

    def texts(self, scene: Scene, num: int, language: Language = "en") -> list[str]:
        """``num`` captions; a scene has fewer phrasings, which then repeat."""
        phrasings = captions(scene, language=language)
        return [phrasings[i % len(phrasings)] for i in range(num)]

    def json(self, name: str, content: Any) -> None:
        self.text(name, json.dumps(content, ensure_ascii=False))

    def text(self, name: str, content: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="")

    def lines(self, name: str, values: Sequence[str], *, end: str = "\n") -> None:
        self.text(name, "".join(f"{value}{end}" for value in values))

    def video(self, name: str, scene: Scene) -> None:
        """A clip of 4 seconds, in the container that its name says."""
        import av

        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as file:
            stream = file.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=FPS)
            stream.width = stream.height = SIZE
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1
            for picture in self.frames(scene):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode(None))

    def picture(self, name: str, scene: Scene, *, frame: int = NUM_FRAMES // 2) -> None:
        from PIL import Image

        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.frames(scene)[frame]).save(path)

    def frames(self, scene: Scene) -> NDArray[np.uint8]:
        if getattr(self, "_rendered", (None,))[0] != scene.key:
            self._rendered = scene.key, render(scene, size=SIZE, num_frames=NUM_FRAMES)
        return self._rendered[1]

    @cached_property
    def youtube(self) -> list[str]:
        """Names as MSVD's: an id of eleven characters, start and end."""
        return [f"{_digest(scene.key)[:11]}_{number}_{number + 4}" for number, scene in enumerate(self.scenes)]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _msrvtt(world: _World) -> None:
    published = {"train": "train", "val": "validate", "test": "test"}
    videos = [
        {"video_id": f"video{number}", "split": published[split], "category": number % 20, "url": "", "id": number}
        for number, split, _ in world
    ]
    texts = [(number, text) for number, _, scene in world for text in world.texts(scene, 20)]
    sentences = [{"sen_id": i, "video_id": f"video{number}", "caption": text} for i, (number, text) in enumerate(texts)]
    world.json("MSRVTT_data.json", {"info": {"year": "2016"}, "videos": videos, "sentences": sentences})
    test = [f'ret{i},msr{n},video{n},"{world.texts(scene, 1)[0]}"' for i, (n, scene) in enumerate(world.of("test"))]
    world.lines("MSRVTT_JSFUSION_test.csv", ["key,vid_key,video_id,sentence", *test])
    _msrvtt_videos(world)


def _msrvtt_videos(world: _World) -> None:
    for number, _, scene in world:
        world.video(f"videos/all/video{number}.mp4", scene)


def _msrvtt_qa(world: _World) -> None:
    _questions(world)
    _msrvtt_videos(world)


def _msvd_qa(world: _World) -> None:
    _questions(world)
    _msvd_videos(world)


def _questions(world: _World) -> None:
    """``video_id`` is the number of the video, as published; MSVD's mapping counts like that too."""
    id = 0
    for split in _SPLITS:
        found = []
        for number, scene in world.of(split):
            for asked in questions(scene, language="en"):
                found.append(
                    {"id": id, "question": asked.question, "answer": asked.answer, "video_id": number, "category_id": 0}
                )
                id += 1
        world.json(f"{split}_qa.json", found)


def _msrvtt_mc(world: _World) -> None:
    lines = []
    all_texts = [world.texts(scene, 1)[0] for scene in world.scenes]
    for i, number in enumerate(range(world.num)):
        others = [text for text in dict.fromkeys(all_texts) if text != all_texts[number]]
        options = [others[(number + k) % len(others)] for k in range(4)]
        options.insert(number % 5, all_texts[number])
        line = {"qid": f"mc{i}", "clip_name": f"video{number}", "title": f"msr{number}", "answer": str(number % 5)}
        lines.append(json.dumps({**line, "options": options}))
    world.lines("msrvtt_mc_test.jsonl", lines)
    _msrvtt_videos(world)


def _didemo(world: _World) -> None:
    for split in _SPLITS:
        moments = []
        for number, scene in world.of(split):
            name = f"12345678@N0{number % 10}_{number}_{_digest(scene.key)[:10]}"
            world.video(f"videos/{name}.mp4", scene)
            for i, text in enumerate(world.texts(scene, 3)):
                moments.append(
                    {
                        "annotation_id": 10 * number + i,
                        "description": text,
                        "video": f"{name}.mov",  # as published: many have another ending on disk
                        "times": [[0, 0]] * 4,
                        "num_segments": 6,
                        "dl_link": "",
                    }
                )
        world.json(f"{split}_data.json", moments)


def _msvd_videos(world: _World) -> None:
    world.lines("youtube_mapping.txt", [f"{name} vid{number}" for number, name in enumerate(world.youtube)], end="\r\n")
    for number, _, scene in world:
        world.video(f"YouTubeClips/{world.youtube[number]}.avi", scene)


def _msvd(world: _World) -> None:
    for split in _SPLITS:
        world.lines(f"{split}_list.txt", [world.youtube[number] for number, _ in world.of(split)])
    english = {world.youtube[n]: [text.split() for text in world.texts(scene, 6)] for n, _, scene in world}
    (world.folder / "raw-captions.pkl").write_bytes(pickle.dumps(english, protocol=2))
    chinese = [(n, text) for n, _, scene in world for text in world.texts(scene, 3, "zh")]
    rows = [f"{i},vid{number}.mp4,{text}" for i, (number, text) in enumerate(chinese, 1)]
    world.lines("msvd_cn_captions_release_utf8.csv", ["id,video_id,sentence", *rows], end="\r\n")
    _msvd_videos(world)


def _vatex(world: _World) -> None:
    files: dict[str, list[Any]] = {"train": [], "val": []}
    names = {}
    for number, split, scene in world:
        names[number] = f"{_digest(scene.key)[:11]}_{number:06d}_{number + 10:06d}"
        captioned = {"enCap": world.texts(scene, 10), "chCap": world.texts(scene, 10, "zh")}
        files["train" if split == "train" else "val"].append({"videoID": names[number], **captioned})
        world.video(f"videos/{names[number]}.mp4", scene)
    world.json("vatex_training_v1.0.json", files["train"])
    world.json("vatex_validation_v1.0.json", files["val"])
    english = [{"videoID": video["videoID"], "enCap": video["enCap"]} for video in files["val"]]
    world.json("vatex_public_test_english_v1.1.json", english)
    for split in ("val", "test"):
        world.lines(f"{split}_list.txt", [names[number] for number, _ in world.of(split)])


def _webvid(world: _World) -> None:
    header = {
        "train": "videoid,contentUrl,duration,page_dir,name",
        "val": "videoid,name,page_idx,page_dir,duration,contentUrl",
    }
    for split, parts in (("train", ("train",)), ("val", ("val", "test"))):
        rows = [header[split]]
        for number, part, scene in world:
            if part in parts:
                video, page = str(1000000 + number), f"{number // 10:06d}_{number // 10 + 50:06d}"
                world.video(f"videos/{page}/{video}.mp4", scene)
                title = '"' + world.texts(scene, 1)[0].replace(" ", "\n", 1) + '"'  # some have line breaks
                values = [video, "https://host/a.mp4", "PT00H00M04S", page, title]
                rows.append(
                    ",".join(values if split == "train" else [values[0], title, "1", *values[3:1:-1], values[1]])
                )
        world.lines(f"results_2M_{split}.csv", rows)


def _cc3m(world: _World) -> None:
    names = {"train": "Train_GCC-training.tsv", "val": "Validation_GCC-1.1.0-Validation.tsv"}
    for split, parts in (("train", ("train",)), ("val", ("val", "test"))):
        scenes = [scene for _, part, scene in world if part in parts]
        for row, scene in enumerate(scenes):
            world.picture(f"{split}/{row // 10000:05d}/{row:09d}.jpg", scene)
        rows = [f"{world.texts(s, 1)[0]}\thttp://host/{s.key}.jpg" for s in scenes]
        world.lines(names[split], [*rows, "a picture whose address is dead\thttp://host/dead.jpg"])


def _coco(world: _World) -> None:
    karpathy: list[Any] = []
    files: dict[str, dict[str, list[Any]]] = {}
    for number, split, scene in world:
        texts = world.texts(scene, 5)
        part = "restval" if split == "train" and number % 4 == 0 else split
        folder = "train2014" if part == "train" else "val2014"
        name = f"COCO_{folder}_{number:012d}.jpg"
        world.picture(f"{folder}/{name}", scene)
        sentences = [{"raw": text, "tokens": text.split(), "imgid": number} for text in texts]
        karpathy.append({"filepath": folder, "filename": name, "cocoid": number, "split": part, "sentences": sentences})
        for year in ("2014", "2017"):
            where = "train" if split == "train" else "val"
            file = files.setdefault(f"captions_{where}{year}", {"images": [], "annotations": []})
            short = f"{number:012d}.jpg" if year == "2017" else f"COCO_{where}2014_{number:012d}.jpg"
            world.picture(f"{where}{year}/{short}", scene)
            file["images"].append({"id": number, "file_name": short, "height": SIZE, "width": SIZE})
            file["annotations"] += [
                {"id": 10 * number + i, "image_id": number, "caption": t} for i, t in enumerate(texts)
            ]
    world.json("dataset_coco.json", {"images": karpathy, "dataset": "coco"})
    for name, content in files.items():
        world.json(f"annotations/{name}.json", content)


def _visual_genome(world: _World) -> None:
    images = []
    for number, _, scene in world:
        regions = [
            {
                "region_id": 100 * number + i,
                "image_id": number + 1,
                "phrase": text,
                "x": 0,
                "y": 0,
                "width": 9,
                "height": 9,
            }
            for i, text in enumerate(world.texts(scene, 5))
        ]
        images.append({"id": number + 1, "regions": regions})
        world.picture(f"VG_100K{'_2' if number % 2 else ''}/{number + 1}.jpg", scene)
    world.json("region_descriptions.json", images)
    world.json("image_data.json", [{"image_id": image["id"], "coco_id": None} for image in images])


def _howto100m(world: _World) -> None:
    spoken = {}
    for number, _, scene in world:
        name = world.youtube[number][:11]
        spoken[name] = _spoken(scene, "en")
        world.video(f"videos/{name}.mp4", scene)
    world.json("caption.json", spoken)
    rows = [f"{name},Hobbies and Crafts,Crafts,{i},{100 + i}" for i, name in enumerate(spoken)]
    world.lines("HowTo100M_v1.csv", ["video_id,category_1,category_2,rank,task_id", *rows])


def _cnvid(world: _World) -> None:
    rows = ["name,url"]
    for number, _, scene in world:
        name = str(7_000_000_000_000_000_000 + number)
        world.json(f"asr_files/{name}", _spoken(scene, "zh"))
        for frame in range(0, NUM_FRAMES, 4):
            world.picture(f"raw_frames/{name}/{frame // 4 + 1:04d}.jpg", scene, frame=frame)
        rows.append(f"{name},https://host/{name}")
    world.lines("cn_vid3_5m_v1.csv", rows)


def _spoken(scene: Scene, language: Language) -> dict[str, list[Any]]:
    said = transcript(scene, language=language, seconds=_SECONDS)
    starts, ends, texts = (list(part) for part in zip(*said, strict=True))
    return {"start": starts, "end": ends, "text": texts}


_WRITERS: dict[str, Callable[[_World], None]] = {
    "cc3m": _cc3m,
    "cnvid": _cnvid,
    "coco": _coco,
    "didemo": _didemo,
    "howto100m": _howto100m,
    "msrvtt": _msrvtt,
    "msrvtt_mc": _msrvtt_mc,
    "msrvtt_qa": _msrvtt_qa,
    "msvd": _msvd,
    "msvd_qa": _msvd_qa,
    "vatex": _vatex,
    "visual_genome": _visual_genome,
    "webvid": _webvid,
}
MINIATURES = tuple(_WRITERS)
HELD_OUT = ("cnvid", "howto100m", "visual_genome")
"""Those whose ``val`` is the ``val_share`` of their videos or pictures, which must be large enough for a miniature."""
