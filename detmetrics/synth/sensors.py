"""The sensors of the car: mounting, rates, and the rows of ``sample_data`` and ``ego_pose`` that they leave."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detmetrics.synth.categories import Floats
from detmetrics.synth.scenes import SENSOR_TOKENS, Scene, tokens
from detmetrics.synth.tracks import SAMPLE_S

Row = dict[str, Any]


class Sensor(NamedTuple):
    """One sensor: ``sweeps`` between an even and after an odd key frame, key frames ``offset_us`` off the sample's."""

    channel: str
    modality: str
    sweeps: tuple[int, int]
    offset_us: int
    translation_m: tuple[float, float, float]
    yaw_deg: float


LIDAR_TOP = Sensor("LIDAR_TOP", "lidar", (9, 9), 0, (0.95, 0.0, 1.84), -90)
#: All sensors: cameras at 12 Hz, lidar at 20 Hz, radars at 13 Hz.
SENSORS = (
    Sensor("CAM_FRONT", "camera", (5, 5), -35_400, (1.7, 0.0, 1.51), 0),
    Sensor("CAM_FRONT_RIGHT", "camera", (5, 5), -27_600, (1.55, -0.49, 1.5), -55),
    Sensor("CAM_BACK_RIGHT", "camera", (5, 5), -19_900, (1.01, -0.48, 1.56), -110),
    Sensor("CAM_BACK", "camera", (5, 5), -10_300, (0.03, 0.0, 1.57), 180),
    Sensor("CAM_BACK_LEFT", "camera", (5, 5), -400, (1.03, 0.48, 1.56), 110),
    Sensor("CAM_FRONT_LEFT", "camera", (5, 5), -43_100, (1.52, 0.49, 1.5), 55),
    LIDAR_TOP,
    Sensor("RADAR_FRONT", "radar", (5, 6), 7_300, (3.41, 0.0, 0.5), 0),
    Sensor("RADAR_FRONT_LEFT", "radar", (6, 5), -21_200, (2.42, 0.8, 0.78), 90),
    Sensor("RADAR_FRONT_RIGHT", "radar", (5, 6), 15_800, (2.42, -0.8, 0.78), -90),
    Sensor("RADAR_BACK_LEFT", "radar", (6, 5), 22_700, (-0.56, 0.63, 0.53), 180),
    Sensor("RADAR_BACK_RIGHT", "radar", (5, 6), -8_900, (-0.56, -0.63, 0.53), 180),
)
_WIDTH, _HEIGHT, _FOCAL = 1600, 900, 1260.0


def calibration(sensor: Sensor, token: str, sensor_token: str) -> Row:
    """Row of ``calibrated_sensor``: pose on the car, and for cameras the intrinsic matrix."""
    cos, sin = float(np.cos(np.radians(sensor.yaw_deg) / 2)), float(np.sin(np.radians(sensor.yaw_deg) / 2))
    is_camera = sensor.modality == "camera"
    # a camera looks along its z axis with y down: (0.5, -0.5, 0.5, -0.5), then turned about the car's z axis
    camera = [(cos + sin) / 2, -(cos + sin) / 2, (cos - sin) / 2, -(cos - sin) / 2]
    focal = _FOCAL if sensor.channel != "CAM_BACK" else 0.64 * _FOCAL
    return {
        "token": token,
        "sensor_token": sensor_token,
        "translation": list(sensor.translation_m),
        "rotation": camera if is_camera else [cos, 0.0, 0.0, sin],
        "camera_intrinsic": [[focal, 0.0, _WIDTH / 2], [0.0, focal, _HEIGHT / 2], [0.0, 0.0, 1.0]] if is_camera else [],
    }


def recordings(scene: Scene, logfile: str, calibrated: dict[Sensor, str], sweeps: bool) -> tuple[list[Row], list[Row]]:
    """Rows of ``sample_data`` and of ``ego_pose`` of one scene, one pose a row, sensor by sensor.

    Parameters
    ----------
    scene : Scene
    logfile : str
        Starts the file names.
    calibrated : dict of Sensor to str
        The sensors and their tokens in ``calibrated_sensor``.
    sweeps : bool
        Also the recordings between the key frames.
    """
    rng = scene.stream(SENSOR_TOKENS)
    data_rows: list[Row] = []
    pose_rows: list[Row] = []
    for sensor, calibrated_token in calibrated.items():
        time_us, is_key, sample = _recording_times(scene, sensor, sweeps)
        n = len(time_us)
        data_token, pose_token = tokens(rng, n), tokens(rng, n)
        translation, rotation = scene.drive.ego_pose(scene.seconds(time_us))
        pose_rows += [
            {"token": token, "timestamp": stamp, "rotation": turn, "translation": place}
            for token, stamp, turn, place in zip(
                pose_token, time_us.tolist(), rotation.tolist(), translation.tolist(), strict=True
            )
        ]
        is_camera = sensor.modality == "camera"
        ending = {"camera": "jpg", "lidar": "pcd.bin", "radar": "pcd"}[sensor.modality]
        path = f"{sensor.channel}/{logfile}__{sensor.channel}__"
        chain = ["", *data_token, ""]
        data_rows += [
            {
                "token": token,
                "sample_token": scene.sample_token[code],
                "ego_pose_token": pose,
                "calibrated_sensor_token": calibrated_token,
                "timestamp": stamp,
                "fileformat": "jpg" if is_camera else "pcd",
                "is_key_frame": key,
                "height": _HEIGHT if is_camera else 0,
                "width": _WIDTH if is_camera else 0,
                "filename": f"{'samples' if key else 'sweeps'}/{path}{stamp}.{ending}",
                "prev": before,
                "next": after,
            }
            for token, code, pose, stamp, key, before, after in zip(
                data_token,
                sample.tolist(),
                pose_token,
                time_us.tolist(),
                is_key.tolist(),
                chain,
                chain[2:],
                strict=False,
            )
        ]
    return data_rows, pose_rows


def _recording_times(scene: Scene, sensor: Sensor, sweeps: bool) -> tuple[Any, Any, Any]:
    """Times (N,) in microseconds, whether each is a key frame, and the sample nearest in time but for the offset."""
    n_samples = len(scene.timestamp_us)
    n_sweeps = np.resize(sensor.sweeps, n_samples) * sweeps
    n_sweeps[-1] = 0
    sample = np.repeat(np.arange(n_samples), n_sweeps + 1)
    number = np.arange(len(sample)) - np.searchsorted(sample, sample)
    # while the recording pauses there is nothing: sweeps fill half a second after their key frame
    step_us: Floats = np.minimum(np.diff(scene.timestamp_us, append=0), 1.1e6 * SAMPLE_S) / (n_sweeps + 1)
    time_us = scene.timestamp_us[sample] + np.round(number * step_us[sample]).astype(np.int64)
    middle_us = (scene.timestamp_us[1:] + scene.timestamp_us[:-1]) // 2
    return time_us + sensor.offset_us, number == 0, np.searchsorted(middle_us, time_us)
