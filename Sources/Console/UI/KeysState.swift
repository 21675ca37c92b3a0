/// How a value is shown.
enum ValueMode: Hashable, Sendable, CaseIterable {
    case json, text, hex

    var title: String {
        switch self {
        case .json: "json"
        case .text: "text"
        case .hex: "hex"
        }
    }
}

/// The value panel: what it shows and where it is scrolled to.
struct ValuePane: Hashable, Sendable {
    enum Content: Hashable, Sendable {
        case nothing
        case loading(RequestID, since: Moment)
        case loaded
        case missing
        case failed(String)
    }

    var key: KeyBytes?
    var content: Content = .nothing
    /// The value as last read; stays while a newer one loads.
    var current: KeyValue?
    /// An earlier version that is shown instead.
    var version: KeyVersion?
    var mode: ValueMode = .text
    /// Made once per value and mode, so that drawing costs only what is visible.
    private(set) var document = ValueDocument.empty
    var scroll = 0
    var sideScroll = 0

    /// Values over this many bytes are shown in part.
    static let previewLimit = 64 * 1024

    mutating func show(_ value: [UInt8], mode: ValueMode?) {
        self.mode = mode ?? (ValueDocument.isJSON(value) ? .json : Format.isText(value) ? .text : .hex)
        document = ValueDocument(value, mode: self.mode, limit: ValuePane.previewLimit)
        scroll = min(scroll, max(0, document.lines.count - 1))
    }

    var shownBytes: [UInt8]? { version?.value ?? current?.value }
}

/// A search over the key space, typed after `/`.
struct KeySearch: Hashable, Sendable {
    var field = TextField()
    var isEditing = true
    /// Waits for a pause in typing before it asks.
    var askAt: Moment?
    var request: RequestID?
    var results: [KeySummary] = []
    var scanned: Int64 = 0
    var isFinished = true
    var failure: String?
    var selection = 0

    static let limit = 1_000
}

/// The History panel.
struct HistoryPane: Hashable, Sendable {
    var key: KeyBytes?
    var request: RequestID?
    var versions: [KeyVersion] = []
    var isComplete = false
    var compactRevision: Int64?
    var failure: String?
    var selection = 0

    static let limit = 20
}

/// A key that is looked for and was not there.
struct RevealMiss: Hashable, Sendable {
    var key: KeyBytes
    var since: Moment
}

/// State of the Keys view.
struct KeysState: Hashable, Sendable {
    var tree: KeyTree
    /// Index into the tree's rows.
    var selection = 0
    var scroll = 0
    var separator: UInt8?
    /// What the person chose; `tree.separator` is nil in flat mode.
    var isFlat = false
    var isFollowing = false
    var search: KeySearch?
    var value = ValuePane()
    var history = HistoryPane()
    var editor: EditorState?
    var external: ExternalEdit?
    /// Sorted.
    var marks: [KeyBytes] = []
    /// A key that is being opened directory by directory.
    var reveal: KeyBytes?
    /// Since when it is not where it should be: our own write may be told before the watch tells it.
    var revealMissing: RevealMiss?
    /// Go to the last row when it has been loaded.
    var wantsBottom = false
    /// The value of the selected row is asked for when the selection has rested.
    var previewDue: Moment?
    /// A value mode the person chose; nil: by content.
    var chosenMode: ValueMode?

    static let restMilliseconds: Int64 = 40

    init(separator: UInt8?) {
        self.separator = separator
        tree = KeyTree(root: KeyBytes([]), separator: separator)
    }

    var searchDue: Moment? { search?.askAt }

    var selectedRow: KeyRow? {
        if let search {
            guard search.results.indices.contains(search.selection) else { return nil }
            let summary = search.results[search.selection]
            return KeyRow(path: summary.key, depth: 0, kind: .key(summary))
        }
        return tree.rows.indices.contains(selection) ? tree.rows[selection] : nil
    }

    /// Selected key, if a key is selected.
    var selectedKey: KeyBytes? {
        guard let row = selectedRow, case .key = row.kind else { return nil }
        return row.path
    }

    var historySelection: Int { history.selection }
    var historyVersion: KeyVersion? { history.versions.indices.contains(history.selection) ? history.versions[history.selection] : nil }

    var editObstacle: String? {
        guard let key = selectedKey else { return "select a key (A adds one)" }
        guard value.key == key, let current = value.current, current.key == key else { return "the value is still on its way" }
        return nil
    }

    var crumbs: [String] {
        guard let row = selectedRow, !row.isGap else { return [] }
        guard let separator = tree.separator, search == nil else { return [Format.text(row.path)] }
        return row.path.bytes.split(separator: separator, omittingEmptySubsequences: true).map { Format.text($0) }
    }

    /// The directory that new keys go to: the selected one, or the one around the selected key.
    var currentDirectory: KeyBytes {
        guard let row = selectedRow else { return tree.root }
        if case .directory = row.kind { return row.path }
        if case .gap(let gap) = row.kind { return gap.prefix }
        guard let separator, let cut = row.path.bytes.lastIndex(of: separator) else { return KeyBytes([]) }
        return KeyBytes(Array(row.path.bytes[...cut]))
    }

    func isMarked(_ key: KeyBytes) -> Bool {
        var low = 0, high = marks.count
        while low < high {
            let middle = (low + high) / 2
            if marks[middle] < key { low = middle + 1 } else { high = middle }
        }
        return low < marks.count && marks[low] == key
    }

    mutating func toggleMark(_ key: KeyBytes) {
        if let index = marks.firstIndex(where: { !($0 < key) }) {
            if marks[index] == key { marks.remove(at: index) } else { marks.insert(key, at: index) }
        } else {
            marks.append(key)
        }
    }
}

/// The inline editor with what it is going to write.
struct EditorState: Hashable, Sendable {
    enum Format: Hashable, Sendable { case text, hex }

    var key: KeyBytes
    /// What the edit is based on; nil for a new key.
    var base: KeyValue?
    var lease: UInt64
    var format: Format
    var text: TextEditor
    var scroll = 0
    var savingRequest: RequestID?
    /// The text the editor started with when it is not the value itself but its JSON laid out.
    var laidOut: String?

    /// etcd's default limit of a request, less room for the rest of it.
    static let sizeLimit = 1_536 * 1_024 - 4_096

    init(key: KeyBytes, base: KeyValue?, value: [UInt8]? = nil) {
        let value = value ?? base?.value ?? []
        self.key = key
        self.base = base
        lease = base?.summary.lease ?? 0
        format = String(validating: value, as: UTF8.self) != nil ? .text : .hex
        text = TextEditor(format == .text ? String(decoding: value, as: UTF8.self) : HexText.dump(value))
    }

    /// The bytes to write; nil while hexadecimal digits are incomplete.
    ///
    /// JSON that was on one line goes back to one line.
    var bytes: [UInt8]? {
        guard format == .text else { return HexText.parse(text.text) }
        let bytes = Array(text.text.utf8)
        guard laidOut != nil, let base, let compact = try? JSON.compacted(bytes, like: base.value) else { return bytes }
        return compact
    }

    var isModified: Bool {
        if let laidOut { return text.text != laidOut }
        return bytes != (base?.value ?? [])
    }
}
