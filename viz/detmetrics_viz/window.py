"""Window: footage on the screen, with keys and mouse, in Open3D's legacy visualizer."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from detmetrics.errors import InputError
from detmetrics_viz.glass import GlassCanvas
from detmetrics_viz.lettering import line_height, width_of, write_lines, write_on
from detmetrics_viz.opening import Stage, open3d, quiet
from detmetrics_viz.pictures import save_png
from detmetrics_viz.session import KEYS, Session, help_lines

if TYPE_CHECKING:
    from detmetrics_viz.footage import Footage
    from detmetrics_viz.looks import Look

#: Width and height of a new window, pixels.
SIZE = (1280, 800)
#: Frames a second while playing.
RATE_HZ = 10.0
#: A press that moves by less is a click, pixels.
_CLICK_PX = 4.0


def show(
    footage: Footage,
    look: Look | None = None,
    *,
    start: int = 0,
    view: str = "behind",
    size: tuple[int, int] = SIZE,
    title: str = "detmetrics",
    tell: Callable[[str], None] | None = None,
) -> None:
    """Show footage in a window until it is closed.

    Parameters
    ----------
    footage : Footage
    look : Look, optional
    start : int
        Place of the first frame.
    view : str
        One of :data:`~detmetrics_viz.looks.VIEWS`.
    size : (int, int)
    title : str
    tell : callable, optional
        Called with lines for the terminal; default: they are printed.

    Raises
    ------
    InputError
        Without a display (says what to use instead), without Open3D, or where the display cannot draw.
    """
    check_display()
    library = open3d()
    session = Session(footage, look, start=start, view=view, tell=tell or print)
    window = library.visualization.VisualizerWithKeyCallback()
    with quiet(library):
        if not window.create_window(title, width=size[0], height=size[1]) or window.get_render_option() is None:
            raise InputError("the display cannot draw OpenGL 3.3", hint=_INSTEAD)
        try:
            _Loop(window, session).run()
        finally:
            window.destroy_window()


_INSTEAD = "use --save FILE.png for a picture or --html FILE.html for a page instead"


def check_display() -> None:
    """Refuse to open a window where there is no display, since Open3D would draw where nobody sees it.

    Raises
    ------
    InputError
        On Linux where neither X11 nor Wayland answers.
    """
    if not sys.platform.startswith("linux"):
        return
    x11, wayland = os.environ.get("DISPLAY"), os.environ.get("WAYLAND_DISPLAY")
    if not x11 and not wayland:
        raise InputError("there is no display to open a window on", hint=_INSTEAD)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if wayland and os.path.exists(os.path.join(runtime, wayland)):
        return
    if not x11 or not _answers():
        raise InputError(f"the display {x11 or wayland} does not answer", hint=_INSTEAD)


def _answers() -> bool:
    """Whether an X server lets us in; True where its library is missing, which Open3D tells better."""
    try:
        library = ctypes.CDLL("libX11.so.6")
    except OSError:
        return True
    library.XOpenDisplay.restype = ctypes.c_void_p
    library.XCloseDisplay.argtypes = (ctypes.c_void_p,)
    display = library.XOpenDisplay(None)
    if display:
        library.XCloseDisplay(display)
    return bool(display)


class _Loop:
    """Keeps a window and a session together."""

    def __init__(self, window: Any, session: Session) -> None:
        self._window, self._session = window, session
        self._stage = Stage(window)
        self._drawn: tuple[Any, ...] = ()
        self._written: tuple[Any, ...] = ()
        self._mouse = self._pressed_at = (0.0, 0.0)
        self._button: int | None = None
        self._last_frame_s = 0.0
        for key in KEYS:
            window.register_key_callback(key.code, self._pressing(key.do))
        window.register_mouse_move_callback(self._move)
        window.register_mouse_button_callback(self._press)
        window.register_mouse_scroll_callback(self._scroll)

    def run(self) -> None:
        """Draw what changes until somebody leaves."""
        session = self._session
        self._draw()
        while not session.is_over and self._window.poll_events():
            if session.is_playing and time.monotonic() - self._last_frame_s >= 1 / RATE_HZ:
                self._last_frame_s = time.monotonic()
                session.step(1)
                session.is_playing = session.at < len(session.footage) - 1
            if not self._draw():
                time.sleep(0.005)

    def _draw(self) -> bool:
        """Bring the window up to date; tell whether anything changed."""
        session, size = self._session, self._size()
        drawn = (id(session.scene), session.look, session.picked)
        written = (*drawn, session.orbit, size, session.is_help_shown, session.message)
        changed = written != self._written
        if drawn != self._drawn:
            self._stage.show(session.scene, session.look, picked=session.picked)
        if changed:
            camera = session.orbit.camera(size)
            self._stage.stand(camera)
            self._stage.write(*self._glass(size).mesh(camera))
            self._window.update_renderer()
            self._drawn, self._written = drawn, written
        if session.wants_picture is not None:
            path, session.wants_picture = session.wants_picture, None
            shown = np.asarray(self._window.capture_screen_float_buffer(True))
            try:
                save_png(np.round(shown * 255).astype(np.uint8), path)
                session.say(f"saved {path}")
            except InputError as error:
                session.say(str(error))
        return changed

    def _glass(self, size: tuple[int, int]) -> GlassCanvas:
        """Write what is to be read."""
        session = self._session
        look, scene = session.look, session.scene
        canvas = GlassCanvas(size, look.theme)
        write_on(canvas, scene, look, session.orbit.camera(size))
        right = size[0] - 12
        if session.picked is not None:
            lines = scene.describe(session.picked, look.min_score)
            write_lines(canvas, right - 20 - max(width_of(line, 14) for line in lines), 12, lines, look.theme)
        if session.is_help_shown:
            lines = help_lines()
            left = (size[0] - max(width_of(line, 14) for line in lines)) // 2
            top = (size[1] - len(lines) * (line_height(14) + 2)) // 2
            write_lines(canvas, max(left, 0), max(top, 0), lines, look.theme)
        note = session.message or "h: help"
        write_lines(canvas, (size[0] - width_of(note, 14)) // 2, size[1] - 46, [note], look.theme)
        return canvas

    def _size(self) -> tuple[int, int]:
        intrinsic = self._window.get_view_control().convert_to_pinhole_camera_parameters().intrinsic
        return intrinsic.width, intrinsic.height

    def _pressing(self, do: Callable[[Session], None]) -> Callable[[Any], bool]:
        def pressed(_: Any) -> bool:
            do(self._session)
            return False

        return pressed

    def _move(self, _: Any, x: float, y: float) -> bool:
        right, down = x - self._mouse[0], y - self._mouse[1]
        self._mouse = (x, y)
        height = self._size()[1]
        session = self._session
        if self._button == 0 and self._is_drag():
            session.orbit = session.orbit.turned(right / height, down / height)
        elif self._button in (1, 2):
            session.orbit = session.orbit.moved(right / height, down / height)
        return False

    def _press(self, _: Any, button: int, action: int, __: int) -> bool:
        if action == 1:
            self._button, self._pressed_at = button, self._mouse
        else:
            if self._button == 0 and not self._is_drag():
                self._session.pick_at(self._mouse, self._session.orbit.camera(self._size()))
            self._button = None
        return False

    def _scroll(self, _: Any, __: float, y: float) -> bool:
        self._session.orbit = self._session.orbit.nearer(y)
        return False

    def _is_drag(self) -> bool:
        return float(np.hypot(*np.subtract(self._mouse, self._pressed_at))) > _CLICK_PX
