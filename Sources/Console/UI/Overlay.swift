/// Something drawn over the view that has the keyboard. There is one at most.
enum Overlay: Hashable, Sendable {
    case help(HelpState)
    case palette(PaletteState)
    case confirm(Confirmation)
    case prompt(Prompt)
    case node(UInt64)
    case conflict(Conflict)
    case workloadForm(WorkloadForm)
    case fault(FaultForm)
    case scenario(ScenarioSummary)
}

struct HelpState: Hashable, Sendable {
    var field = TextField()
    var isFiltering = false
    var scroll = 0
}

struct PaletteState: Hashable, Sendable {
    var field = TextField()
    var selection = 0
}

/// A question before something that is hard to take back. The level of proof follows the blast radius.
struct Confirmation: Hashable, Sendable {
    enum Question: Hashable, Sendable {
        case quit
        case discardEdit
        case deleteKey(KeySummary)
        case deleteKeys([KeySummary])
        /// `count` arrives after the question is on the screen; the proof is accepted only then.
        case deletePrefix(KeyBytes, request: RequestID, count: Int64?, leased: Int?, samples: [KeyBytes], failure: String?)
        case writeEdit
        case overwrite
        case restore(KeyVersion)
        case undo(UndoStep)
        case lead(member: UInt64, name: String)
        case workload
        case canary
    }

    var question: Question
    /// A word to type; nil: `y` is enough.
    var proof: String?
    var field = TextField()
}

/// A line to type.
struct Prompt: Hashable, Sendable {
    enum Purpose: Hashable, Sendable {
        case newKey
        case rename(KeyValue)
        case addWatch
        case saveStream
        case exportLatency
        case exportElections
        case recordSession
        case exportLog
    }

    var purpose: Purpose
    var field: TextField
    var problem: String?
}

/// The key changed while it was edited.
struct Conflict: Hashable, Sendable {
    /// What it is now; nil: it was deleted.
    var theirs: KeyValue?
    var merge: ThreeWayMerge
    var selection = 0
}
