// The types of web/*.mjs under their own names, so that no comment there needs an import: a widget's modules have no addresses.
type Numbers = import("./web/flow.mjs").Numbers;
type Box = import("./web/plot.mjs").Box;
type Scale = import("./web/plot.mjs").Scale;
type Setting = { outputs: number; peakedness: number; skill?: number; seed: number } & Record<string, any>;
type Control = import("./web/state.mjs").Control;
type Slider = import("./web/state.mjs").Slider;
type Choice = import("./web/state.mjs").Choice;
type State = import("./web/state.mjs").State;
type Definition = import("./web/ui.mjs").Definition;
type Readout = import("./web/ui.mjs").Readout;
type Prepare = import("./web/work.mjs").Prepare;
