"""Models, their versions and evaluations, and what they answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from finetrail.client.calls import POLL_S, Calls, Point, or_none, part, point, without_none
from finetrail.client.downloads import check_hash, check_zip, download
from finetrail.client.files import Report
from finetrail.client.models import Evaluation, Example, Job, Link, Model, Prediction, Version
from finetrail.client.transport import API


class RegistryCalls(Calls):
    def models(
        self,
        *,
        base_model: str | None = None,
        status: str | None = None,
        date_from: str | None = None,
        date_to: str | None = None,
        limit: int | None = None,
        as_of: Point | None = None,
    ) -> list[Model]:
        """Newest first.

        Args:
            status: active: a version is in service; uploading, ready, error: one has that status.
            date_from: A day of UTC, as 2026-11-20, or a moment.
            date_to: As ``date_from``; the whole day.
            as_of: As it was then: a sequence of the log, or a time with its zone.
        """
        chosen = {"base_model": base_model, "status": status}
        span = {"date_from": date_from, "date_to": date_to}
        found = self._pages("/models", limit, **chosen, **span, as_of=point(as_of))
        return [Model.model_validate(each) for each in found]

    def model(self, name: str, *, as_of: Point | None = None) -> Model:
        return Model.model_validate(self._get(f"/models/{part(name)}", as_of=point(as_of)))

    def versions(self, name: str, *, as_of: Point | None = None) -> list[Version]:
        found = self._pages(f"/models/{part(name)}/versions", None, as_of=point(as_of))
        return [Version.model_validate(each) for each in found]

    def version(self, name: str, number: int, *, as_of: Point | None = None) -> Version:
        path = f"/models/{part(name)}/versions/{number}"
        return Version.model_validate(self._get(path, as_of=point(as_of)))

    def wait_for_version(self, job_id: str, *, timeout_s: float | None = 60.0) -> Version:
        """The version that a job which succeeded became, once it is ready or has failed."""

        def registered() -> Version | None:
            found = Job.model_validate(self._get(f"/jobs/{part(job_id)}")).version
            version = found and or_none(lambda: self.version(found.model, found.number))
            return version if version and version.status != "uploading" else None

        return self._until(registered, f"job {job_id} has no version", timeout_s, POLL_S / 2)

    def wait_for_evaluation_of(self, job_id: str, *, timeout_s: float | None = 60.0) -> str:
        """The id of the evaluation that follows a job which succeeded."""

        def requested() -> str | None:
            return Job.model_validate(self._get(f"/jobs/{part(job_id)}")).evaluation_id

        return self._until(requested, f"job {job_id} has no evaluation", timeout_s, POLL_S / 2)

    def activate(self, name: str, version: int) -> Model:
        """Put a ready version into service; the one before stays and can be activated again."""
        asked = {"version": version}
        return Model.model_validate(self._post(f"/models/{part(name)}/activate", asked))

    def predict(
        self, name: str, texts: Sequence[str], *, version: int | None = None
    ) -> list[Prediction]:
        """One prediction a text, in order, by the version in service if none is named."""
        asked = without_none({"texts": list(texts), "version": version})
        answer = self._post(f"/models/{part(name)}/predict", asked)
        return [Prediction.model_validate(each) for each in answer["predictions"]]

    def predict_rows(
        self,
        name: str,
        rows: Sequence[Mapping[str, float | str | bool | None]],
        *,
        version: int | None = None,
    ) -> list[Prediction]:
        """One prediction a row of a table, in order; ``missing`` says which columns told nothing."""
        asked = without_none({"rows": [dict(row) for row in rows], "version": version})
        answer = self._post(f"/models/{part(name)}/predict", asked)
        return [Prediction.model_validate(each) for each in answer["predictions"]]

    def download(
        self, name: str, version: int, to: str | Path, *, on_progress: Report | None = None
    ) -> Path:
        """Save a version as a ZIP file; ``to`` appears when it is whole and its checksums hold.

        A download that broke off goes on where it was, also in a later process.
        """
        path = f"{API}/models/{part(name)}/versions/{version}/download"
        download(self._transport, path, Path(to), check_zip, on_progress)
        return Path(to)

    def download_file(
        self,
        name: str,
        version: int,
        path: str,
        to: str | Path,
        *,
        on_progress: Report | None = None,
    ) -> Path:
        """Save one file of a version, by its name in the ZIP; resumed and checked as a ZIP is."""
        url = f"{API}/models/{part(name)}/versions/{version}/files/{quote(path)}"
        download(self._transport, url, Path(to), check_hash, on_progress)
        return Path(to)

    def link(
        self, name: str, version: int, *, path: str | None = None, minutes: int | None = None
    ) -> Link:
        """A link to the ZIP of a version, or to one file of it, that works without a key."""
        asked = without_none({"path": path, "minutes": minutes})
        answer = self._post(f"/models/{part(name)}/versions/{version}/links", asked)
        return Link.model_validate(answer)

    def evaluations(
        self,
        *,
        model: str | None = None,
        version: int | None = None,
        limit: int | None = 100,
        as_of: Point | None = None,
    ) -> list[Evaluation]:
        asked = {"model": model, "version": version, "as_of": point(as_of)}
        found = self._pages("/evaluations", limit, **asked)
        return [Evaluation.model_validate(each) for each in found]

    def evaluation(self, evaluation_id: str, *, as_of: Point | None = None) -> Evaluation:
        path = f"/evaluations/{part(evaluation_id)}"
        return Evaluation.model_validate(self._get(path, as_of=point(as_of)))

    def evaluation_examples(self, evaluation_id: str) -> list[Example]:
        """Some held-out texts side by side: what was expected, and what either model said."""
        found = self._list(f"/evaluations/{part(evaluation_id)}/examples")
        return [Example.model_validate(each) for each in found]

    def evaluate(self, model: str, version: int) -> Evaluation:
        """Ask for another evaluation of a version."""
        asked = {"model": model, "version": version}
        return Evaluation.model_validate(self._post("/evaluations", asked))

    def cancel_evaluation(self, evaluation_id: str) -> None:
        self._post(f"/evaluations/{part(evaluation_id)}/cancel")

    def wait_for_evaluation(
        self,
        evaluation_id: str,
        on_progress: Callable[[Evaluation], None] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Evaluation:
        """Return the evaluation when it has ended, however it ended."""

        def ended() -> Evaluation | None:
            evaluation = or_none(lambda: self.evaluation(evaluation_id))
            if evaluation and on_progress:
                on_progress(evaluation)
            return evaluation if evaluation and evaluation.ended else None

        return self._until(ended, f"evaluation {evaluation_id} has not ended", timeout_s, POLL_S)
