"""Pictures: scenes drawn without a display, as arrays and PNG; sheets of several; films."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.errors import InputError
from detmetrics.extras import needs
from detmetrics.files import check_output, whole_file
from detmetrics_viz.lettering import ImageCanvas, line_height, shorten, write_on
from detmetrics_viz.looks import Look
from detmetrics_viz.opening import Stage, offscreen
from detmetrics_viz.orbit import viewpoint
from detmetrics_viz.themes import Theme, rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detmetrics_viz.projecting import Pinhole
    from detmetrics_viz.scene import Scene

    Image = NDArray[np.uint8]

#: Width and height of pictures, pixels.
SIZE = (1280, 720)
#: Endings of films.
FILMS = (".mp4", ".gif")


class Painter:
    """Draws scenes without a display, one after another, in one hidden window; to be used in a ``with`` block.

    Parameters
    ----------
    size : (int, int)
        Width and height of the pictures, 64 to 8192 pixels.
    smooth : int
        How many pixels are drawn along each side of one that is kept, 1 to 4: 2 gives smooth lines, 1 is fast.

    Raises
    ------
    InputError
        Where Open3D or a library of the system is missing, naming the packages; on sizes out of range.

    Notes
    -----
    A window belongs to the thread and the process that made it: in worker processes, which must be spawned and not
    forked, each makes its own.
    """

    def __init__(self, size: tuple[int, int] = SIZE, *, smooth: int = 1) -> None:
        if not all(64 <= side <= 8192 for side in size):
            raise InputError("size of a picture", expected="64 to 8192 pixels each way", got=size)
        if not 1 <= smooth <= 4:
            raise InputError("smooth", expected="1 to 4", got=smooth)
        self.size, self.smooth = size, smooth
        self._window: Any = offscreen(size[0] * smooth, size[1] * smooth)
        self._stage = Stage(self._window)

    def draw(self, scene: Scene, look: Look | None = None, camera: Pinhole | str = "behind") -> Image:
        """Draw a scene.

        Parameters
        ----------
        scene : Scene
        look : Look, optional
        camera : Pinhole or str
            Of this painter's size, with one focal length and the principal point in the middle, which is all that
            Open3D can draw; or one of :data:`~detmetrics_viz.looks.VIEWS`.

        Returns
        -------
        uint8 (height, width, 3)

        Raises
        ------
        InputError
            For another view, and for a camera that cannot be drawn.
        """
        look = look or Look()
        seen = viewpoint(camera, scene).camera(self.size) if isinstance(camera, str) else camera
        if (seen.width, seen.height) != self.size:
            raise InputError("camera", expected=f"of the painter's size {self.size}", got=(seen.width, seen.height))
        wanted = np.eye(3) * [seen.matrix[1, 1], seen.matrix[1, 1], 1]
        wanted[:2, 2] = (np.array(self.size) - 1) / 2
        if not np.allclose(seen.matrix, wanted, rtol=0, atol=1e-6):
            raise InputError(
                "camera",
                expected="with its principal point in the middle of the picture and one focal length, as Open3D draws",
                got=seen.matrix.tolist(),
            )
        self._stage.show(scene, look, scale=self.smooth * self.size[1] / SIZE[1])
        self._stage.stand(seen.scaled(self.smooth))
        self._window.poll_events()
        drawn = np.asarray(self._window.capture_screen_float_buffer(False))
        image = _shrink(drawn, self.smooth)
        write_on(ImageCanvas(image), scene, look, seen)
        return image

    def close(self) -> None:
        """Give the window back."""
        if self._window is not None:
            self._window.destroy_window()
            self._window = None

    def __enter__(self) -> Painter:
        """Draw within a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the window back."""
        self.close()


def _shrink(drawn: NDArray[np.float32], smooth: int) -> Image:
    """Average squares of pixels, and turn 0…1 to 0…255."""
    if smooth > 1:
        height, width = drawn.shape[0] // smooth, drawn.shape[1] // smooth
        parts = drawn.reshape(height, smooth, width, smooth, 3)
        total = parts[:, 0, :, 0].copy()
        for i in range(smooth):
            for j in range(smooth):
                if i or j:
                    total += parts[:, i, :, j]
        drawn = total / np.float32(smooth * smooth)
    return (drawn * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def encode_png(image: Image) -> bytes:
    """Give a picture as the bytes of a PNG file."""
    with needs("viz", "a picture"):
        from PIL import Image as pillow

    buffer = io.BytesIO()
    pillow.fromarray(image).save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def save_png(image: Image, path: str | Path) -> None:
    """Write a picture as a PNG file, whole or not at all."""
    content = encode_png(image)
    with whole_file(path) as file:
        file.write(content)


def sheet(
    images: Sequence[Image],
    captions: Sequence[str] | None,
    theme: Theme,
    *,
    n_columns: int | None = None,
    title: str = "",
) -> Image:
    """Put pictures of one size on a sheet, each under its caption, if there are any.

    Parameters
    ----------
    images : sequence of uint8 (H, W, 3)
    captions : sequence of str, or None
        One for each; None where the pictures say themselves what they are.
    theme : Theme
    n_columns : int, optional
        Default: about as many as rows, at most 4.
    title : str
        What stands above them all.

    Returns
    -------
    uint8 (height, width, 3)

    Raises
    ------
    InputError
        Without pictures, or where captions or sizes do not fit.
    """
    if not images:
        raise InputError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(images):
        raise InputError("captions", expected=f"one for each of {len(images)} pictures", got=len(captions))
    if len({image.shape for image in images}) > 1:
        raise InputError("pictures of a sheet", expected="of one size", got=[image.shape for image in images])
    height, width = images[0].shape[:2]
    columns = n_columns or min(4, int(np.ceil(np.sqrt(len(images)))))
    n_rows = -(-len(images) // columns)
    gap, size, large = 12, 18, 30
    head = line_height(size) + 8 if captions else 0
    above = gap + (line_height(large) + gap if title else 0)
    whole = np.empty((above + n_rows * (head + height + gap), gap + columns * (width + gap), 3), np.uint8)
    whole[...] = rgb(theme.background)
    canvas = ImageCanvas(whole)
    if title:
        canvas.text(gap + 2, gap, title, rgb(theme.text), large)
    for k, image in enumerate(images):
        y, x = above + k // columns * (head + height + gap), gap + k % columns * (width + gap)
        if captions:
            canvas.text(x + 2, y + 2, shorten(captions[k], max(10, width // 9)), rgb(theme.text), size)
        whole[y + head : y + head + height, x : x + width] = image
    return whole


def save_film(
    images: Iterable[Image],
    path: str | Path,
    *,
    fps: float = 4.0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write pictures as a film: ``.mp4`` (H.264) or ``.gif``, whole or not at all.

    Parameters
    ----------
    images : iterable of uint8 (H, W, 3)
        Of one size; taken one at a time.
    path : path
    fps : float
        Pictures a second.
    progress : callable, optional
        Called with the number of pictures written.

    Raises
    ------
    InputError
        On another ending, no pictures, or a film that cannot be written.
    """
    target = check_output(path, "film")
    ending = target.suffix.lower()
    if ending not in FILMS:
        raise InputError("ending of a film", expected=" or ".join(FILMS), got=target.name)
    if not 0.1 <= fps <= 120:
        raise InputError("pictures a second", expected="0.1 to 120", got=fps)
    write = _write_gif if ending == ".gif" else _write_mp4
    write(_counted(images, progress), target, fps)


def _counted(images: Iterable[Image], progress: Callable[[int], None] | None) -> Iterable[Image]:
    number = 0
    for number, image in enumerate(images, 1):
        yield image
        if progress:
            progress(number)
    if not number:
        raise InputError("a film needs at least one picture")


def _write_gif(images: Iterable[Image], target: Path, fps: float) -> None:
    with needs("viz", "a picture"):
        from PIL import Image as pillow

    frames = [pillow.fromarray(image).quantize(256, dither=pillow.Dither.NONE) for image in images]
    with whole_file(target) as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=round(1000 / fps), loop=0)


def _write_mp4(images: Iterable[Image], target: Path, fps: float) -> None:
    with needs("viz", "a film as .mp4"):
        import imageio_ffmpeg
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "film.mp4"
        writer: Any = None
        try:
            for image in images:
                even = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])  # H.264
                if writer is None:
                    size = (even.shape[1], even.shape[0])
                    writer = imageio_ffmpeg.write_frames(
                        str(made), size, fps=fps, codec="libx264", macro_block_size=2, quality=8,
                        output_params=["-movflags", "+faststart", "-preset", "veryfast"], ffmpeg_log_level="error",
                    )  # fmt: skip
                    writer.send(None)
                writer.send(even)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error}") from None
        finally:
            if writer is not None:
                writer.close()
        with made.open("rb") as film, whole_file(target) as file:
            shutil.copyfileobj(film, file)
