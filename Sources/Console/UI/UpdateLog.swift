/// What only the Log view does.
enum LogVerb: Hashable, Sendable {
    case none
}

extension Catalogue {
    static let logEntries: [CatalogueEntry] = []
}

extension Model {
    mutating func performInLog(_ verb: Verb, _ commands: inout [Command]) {
    }

    func obstacle(to verb: LogVerb) -> String? {
        nil
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInLog() -> Bool {
        false
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInLog(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
    }
}
