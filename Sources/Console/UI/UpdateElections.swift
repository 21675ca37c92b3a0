/// What only the Elections view does.
enum ElectionsVerb: Hashable, Sendable {
    case none
}

extension Catalogue {
    static let electionsEntries: [CatalogueEntry] = []
}

extension Model {
    mutating func performInElections(_ verb: Verb, _ commands: inout [Command]) {
    }

    func obstacle(to verb: ElectionsVerb) -> String? {
        nil
    }

    /// One step back inside the view; false when there is none.
    mutating func stepBackInElections() -> Bool {
        false
    }

    /// `step`: 0 for a click, else rows that the wheel turned.
    mutating func mouseInElections(_ position: Position, step: Int, _ body: Rect, _ commands: inout [Command]) {
    }
}
