"""A site that offers dubs beside the original, or dubs alone, through yt-dlp to the ledger."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support import plain_corpus

from voxblink2_lib.cli import main
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.store.status import missing_videos, read_status

pytestmark = pytest.mark.usefixtures("inline_workers")

DUBBED, DUB_ONLY, PLAIN = plain_corpus.video_ids(3)
DAY_SECONDS = 86_400.0
# Name, language, codec, bits a second, and what the address says. The dub has the better codec and
# bit rate, and is no file of the site.
ORIGINAL = ("theOriginal", "de", "mp4a.40.2", 64_000, "acont=original:lang=de")
DUB = ("aMachineDub", "en", "opus", 510_000, "acont=dubbed-auto:lang=en")


def manifest(site: MediaSite, *tracks: tuple[str, str, str, int, str]) -> str:
    """Return a DASH manifest of tracks, with addresses that describe them as YouTube's do."""
    watch = site.url_template.format(video_id="")
    sets = "".join(
        f'<AdaptationSet mimeType="audio/mp4" lang="{language}">'
        f'<Representation id="{name}" codecs="{codec}" bandwidth="{bits}">'
        f"<BaseURL>{watch}{name}?xtags={quote(xtags, safe='')}</BaseURL>"
        "</Representation></AdaptationSet>"
        for name, language, codec, bits, xtags in tracks
    )
    heights = "".join(
        f'<Representation id="{height}" codecs="avc1.64001f" bandwidth="900000" width="640" '
        f'height="{height}"><BaseURL>gone{height}</BaseURL></Representation>'
        for height in (360, 480, 1080)
    )
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT4S"><Period>{sets}'
        f'<AdaptationSet mimeType="video/mp4">{heights}</AdaptationSet></Period></MPD>'
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A release of three videos, and a folder for the site."""
    plain_corpus.make_release(tmp_path, (DUBBED, DUB_ONLY, PLAIN))
    folder = tmp_path / "media" / "served"
    folder.mkdir(parents=True)
    for name in (ORIGINAL[0], PLAIN):
        (folder / f"{name}.wav").write_bytes(plain_corpus.wav())
    return tmp_path


def attempts(store: Path) -> list[tuple[str, str, dict[str, Any]]]:
    database = sqlite3.connect(store / "ledger.sqlite")
    rows = database.execute(
        "select video_id, status, facts from attempts order by video_id, attempt"
    ).fetchall()
    database.close()
    return [(video, status, json.loads(facts)) for video, status, facts in rows]


class Later:
    """Stands for the module ``time`` in the ledger: a day later."""

    def time(self) -> float:
        return time.time() + DAY_SECONDS


def test_the_original_is_downloaded_and_dubs_alone_wait_for_it(
    corpus: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = corpus / "media" / "served"
    with MediaSite(corpus / "media") as site:
        (served / f"{DUBBED}.mpd").write_text(manifest(site, DUB, ORIGINAL, DUB))
        (served / f"{DUB_ONLY}.mpd").write_text(manifest(site, DUB))
        request = MaterializeRequest(
            data_dir=str(corpus), store=str(corpus / "store"), source=site.url_template, workers=1
        )
        store = materialize(request, retry=True, wait=False)
        assert read_status(store, "audio").videos == {"done": 2, "not-original": 1}
        (missing,) = missing_videos(store, "audio")
        assert (missing.video_id, missing.status) == (DUB_ONLY, "not-original")
        assert "only dubbed or described (languages: en)" in missing.reason
        of_dubbed = {
            **{"audio_id": ORIGINAL[0], "language": "de", "reference_height": 480},
            "audio_tracks": 1,
        }
        first_run = [
            (DUBBED, "done", of_dubbed),
            (DUB_ONLY, "not-original", {"reference_height": 480}),
            (PLAIN, "done", {"audio_id": "wav", "audio_tracks": 1}),
        ]
        assert attempts(store.root) == first_run
        main(["status", "--store", str(store.root)])
        out = capsys.readouterr().out
        assert "Videos     2 done, 1 not-original" in out
        assert "Waiting    1 for a retry" in out
        # Nothing is asked again at once; a day later the original is there.
        asked = len(site.requests)
        materialize(request, retry=True, wait=False)
        assert len(site.requests) == asked
        (served / f"{DUB_ONLY}.mpd").write_text(manifest(site, DUB, ORIGINAL))
        monkeypatch.setattr("voxblink2_lib.store.verdicts.time", Later())
        materialize(request, retry=True, wait=False)
        assert read_status(store, "audio").videos == {"done": 3}
        assert attempts(store.root)[2] == (DUB_ONLY, "done", of_dubbed)
        assert DUB[0] not in {made.video_id for made in site.requests}
