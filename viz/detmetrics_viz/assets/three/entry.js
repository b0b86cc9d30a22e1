// What page.js uses of three.js; esbuild leaves out the rest. Built as README.md says.
export {
  BufferAttribute, BufferGeometry, ColorManagement, DataTexture, DoubleSide, LinearSRGBColorSpace, Mesh, MeshBasicMaterial,
  PerspectiveCamera, Points, Scene, ShaderMaterial, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { LineMaterial } from "three/addons/lines/LineMaterial.js";
export { LineSegments2 } from "three/addons/lines/LineSegments2.js";
export { LineSegmentsGeometry } from "three/addons/lines/LineSegmentsGeometry.js";
