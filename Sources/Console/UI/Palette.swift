/// A line of the command palette.
struct PaletteItem: Sendable {
    enum Action: Sendable {
        case entry(CatalogueEntry)
        case node(Verb, member: UInt64)
        case theme(String)
        case separator(UInt8?)
        case goTo(KeyBytes)
        case watch(WatchTarget)
        case put(KeyBytes)
        case faults([Fault], milliseconds: Int64?)
        /// nil: all of them.
        case heal(Fault?)
        case scenario(String)
        case stopScenario
        case load
        /// Not complete: nothing to run yet.
        case phrase(String)
    }

    var title: String
    var detail: String
    var key: String
    /// What Tab writes into the field.
    var completion: String
    /// Why it cannot be run now; it is listed all the same.
    var obstacle: String?
    var action: Action
}

/// Fuzzy matching: every character of the pattern in order; better when they start words or follow each other.
enum Fuzzy {
    /// nil: no match. Larger is better.
    static func score(_ pattern: String, _ text: String) -> Int? {
        if pattern.isEmpty { return 0 }
        let wanted = Array(pattern.lowercased()), characters = Array(text.lowercased())
        var score = 0, next = 0, last = -2
        for (index, character) in characters.enumerated() where next < wanted.count && character == wanted[next] {
            score += 1
            if index == last + 1 { score += 5 }
            if index == 0 || !characters[index - 1].isWordPart { score += 3 }
            if index == next { score += 2 }
            last = index
            next += 1
        }
        return next == wanted.count ? score * 8 - characters.count : nil
    }
}

extension Model {
    /// Everything the palette offers for what is typed, best first.
    func paletteItems(_ text: String) -> [PaletteItem] {
        var items: [PaletteItem] = []
        let words = text.split(separator: " ", maxSplits: 1, omittingEmptySubsequences: true).map(String.init)
        let argument = words.count > 1 ? words[1] : ""
        func bytes(_ text: String) -> KeyBytes { KeyBytes(Model.unescaped(text)) }
        func place(_ text: String) -> PaletteItem {
            PaletteItem(title: "go \(text)", detail: "show this key or directory in Keys", key: "", completion: "go \(text)", action: .goTo(bytes(text)))
        }
        // A path is a place to go to or to watch.
        if let first = text.utf8.first, first == keys.separator {
            items.append(place(text))
            items.append(PaletteItem(title: "watch \(text)", detail: "live stream of this prefix", key: "", completion: "watch \(text)", action: .watch(.prefix(bytes(text)))))
            return items
        }
        switch words.first {
        case "go" where !argument.isEmpty: items.append(place(argument))
        case "watch" where !argument.isEmpty:
            items.append(PaletteItem(title: "watch \(argument)", detail: "live stream of this prefix", key: "", completion: text, action: .watch(.prefix(bytes(argument)))))
        case "put" where !argument.isEmpty:
            items.append(PaletteItem(title: "put \(argument)", detail: "write a new key in the editor", key: "", completion: text, obstacle: mode == .readOnly ? "read-only" : nil, action: .put(bytes(argument))))
        default: break
        }
        if !items.isEmpty { return items }
        let phrases = phraseItems(text)
        if !phrases.isEmpty { return phrases }

        for member in cluster.members {
            let verbs: [(Verb, String, String)] = [(.kill, "kill", "K"), (.restart, "restart", "R"), (.pause, "pause", "P"), (.isolate, "isolate", "X"), (.lead, "lead", "L")]
            for (verb, word, key) in verbs {
                guard cluster.kind == .playground || verb == .lead else { continue }
                var model = self
                model.overview.selection = cluster.members.firstIndex { $0.id == member.id } ?? 0
                let detail = member.role == .leader && member.isUp ? "leads now" : RoleLanes.state(of: member) == .down ? "down" : "node at \(member.endpoint)"
                items.append(PaletteItem(title: "\(word) \(member.name)", detail: detail, key: key, completion: "\(word) \(member.name)",
                                         obstacle: model.obstacle(to: verb, changes: true), action: .node(verb, member: member.id)))
            }
        }
        items += faultItems
        items.append(PaletteItem(title: "load", detail: workload.isOn ? "change the workload that runs" : "set the workload up and start it", key: "", completion: "load", action: .load))
        var seen: Set<String> = []
        for entry in Catalogue.entries where entry.context != .editor && entry.section != .move || { if case .view = entry.verb { true } else { false } }() {
            guard seen.insert(entry.name).inserted, entry.verb != .palette, entry.verb != .goBack else { continue }
            items.append(PaletteItem(title: entry.name, detail: entry.help, key: entry.keys.first?.label(glyphs) ?? "", completion: entry.name,
                                     obstacle: obstacle(to: entry.verb, changes: entry.changes), action: .entry(entry)))
        }
        for name in themeNames {
            items.append(PaletteItem(title: "theme \(name)", detail: name == theme.name ? "in use" : "colours", key: "", completion: "theme \(name)", action: .theme(name)))
        }
        for (label, separator) in [("/", UInt8(ascii: "/")), (".", UInt8(ascii: ".")), (":", UInt8(ascii: ":"))] {
            items.append(PaletteItem(title: "separator \(label)", detail: keys.separator == separator ? "in use" : "build the tree on it", key: "", completion: "separator \(label)", action: .separator(separator)))
        }
        items.append(PaletteItem(title: "go KEY", detail: "show a key or directory in Keys", key: "", completion: "go ", obstacle: "type a key after go", action: .goTo(KeyBytes([]))))
        items.append(PaletteItem(title: "watch PREFIX", detail: "live stream", key: "", completion: "watch ", obstacle: "type a prefix after watch", action: .watch(.prefix(KeyBytes([])))))
        items.append(PaletteItem(title: "put KEY", detail: "write a new key", key: "A", completion: "put ", obstacle: "type a key after put", action: .put(KeyBytes([]))))

        // Best match first; of equal ones the recently used, then the order of the table.
        let scored = items.enumerated().compactMap { index, item -> (score: Int, index: Int, item: PaletteItem)? in
            let recent = paletteHistory.lastIndex(of: item.title).map { $0 + 1 } ?? 0
            if text.isEmpty { return (recent * 1_000 - (item.obstacle == nil ? 0 : 500), index, item) }
            let byTitle = Fuzzy.score(text, item.title)
            let byDetail = Fuzzy.score(text, item.detail).map { $0 / 4 - 20 }
            guard let best = [byTitle, byDetail].compactMap({ $0 }).max() else { return nil }
            return (best * 4 + recent - (item.obstacle == nil ? 0 : 12), index, item)
        }
        return scored.sorted { $0.score != $1.score ? $0.score > $1.score : $0.index < $1.index }.map(\.item)
    }
}
