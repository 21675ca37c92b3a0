/// What is typed in the palette to break and heal: `kill leader`, `cut n1 n2`, `slow disk n2 20ms for 30s`, `partition n1 n2 | n3`.
/// A phrase is a head and places; what is missing is offered, so that Tab and Enter lead through it.
struct FaultPhrase: Sendable {
    enum Place: Sendable {
        case node
        /// A node, or `all`.
        case nodeOrAll
        case word(String)
        /// A figure, read by the phrase; the texts offered show its form.
        case figure([String])
        /// The rest of the line.
        case groups
    }

    var head: String
    var places: [Place]
    var detail: String
    /// Member ids in order of the places (nil: all), and the figures typed. A text is what is wrong.
    var make: @Sendable ([UInt64?], [String], [MemberState]) -> Result<[Fault], Wrong>

    struct Wrong: Error { var text: String }

    private static func milliseconds(_ text: String) -> Double? { Double(text) ?? FaultText.milliseconds(of: text).map(Double.init) }

    private static func wire(_ ids: [UInt64?], _ change: (inout WireFault) -> Void) -> [Fault] {
        var wire = WireFault()
        change(&wire)
        return [.wire(from: ids[0], to: ids[1], wire)]
    }

    static let all: [FaultPhrase] = [
        FaultPhrase(head: "kill", places: [.node], detail: "as SIGKILL: nothing flushed") { ids, _, _ in .success([.kill(ids[0]!)]) },
        FaultPhrase(head: "stop", places: [.node], detail: "gently: leadership is handed over first") { ids, _, _ in .success([.stop(ids[0]!)]) },
        FaultPhrase(head: "pause", places: [.node], detail: "stands still, connections open") { ids, _, _ in .success([.pause(ids[0]!)]) },
        FaultPhrase(head: "tear", places: [.node], detail: "power failure: last log record torn") { ids, _, _ in .success([.tornTail(ids[0]!)]) },
        FaultPhrase(head: "isolate", places: [.node], detail: "cut off from all its peers") { ids, _, _ in .success([.isolate(ids[0]!)]) },
        FaultPhrase(head: "cut", places: [.node, .node], detail: "the link from the one to the other, one way") { ids, _, _ in .success([.cut(from: ids[0]!, to: ids[1]!)]) },
        FaultPhrase(head: "partition", places: [.groups], detail: "groups that do not hear each other, parted by |") { _, figures, members in
            do throws(FaultForm.Problem) { return .success([.partition(try FaultForm.groups(figures[0], members))]) } catch { return .failure(Wrong(text: error.text)) }
        },
        FaultPhrase(head: "delay", places: [.nodeOrAll, .nodeOrAll, .figure(["40ms", "200ms"])], detail: "messages from the one to the other come late") { ids, figures, _ in
            guard let value = milliseconds(figures[0]), value > 0, value <= 60_000 else { return .failure(Wrong(text: "a delay is 1 to 60,000 ms, like 40ms")) }
            return .success(wire(ids) { $0.delayMilliseconds = value })
        },
        FaultPhrase(head: "lose", places: [.nodeOrAll, .nodeOrAll, .figure(["5%", "50%"])], detail: "a share of messages vanishes") { ids, figures, _ in
            guard let value = Double(figures[0].filter { $0 != "%" }), value > 0, value <= 100 else { return .failure(Wrong(text: "a loss is up to 100 %")) }
            return .success(wire(ids) { $0.lossPercent = value })
        },
        FaultPhrase(head: "slow", places: [.word("disk"), .node, .figure(["20ms", "200ms"])], detail: "every fsync takes this much longer") { ids, figures, _ in
            guard let value = milliseconds(figures[0]), value >= 1, value <= 60_000 else { return .failure(Wrong(text: "1 to 60,000 ms, like 20ms")) }
            return .success([.disk(ids[0]!, .slow(milliseconds: Int(value)))])
        },
        FaultPhrase(head: "stuck", places: [.word("disk"), .node], detail: "fsync does not return") { ids, _, _ in .success([.disk(ids[0]!, .stuck)]) },
        FaultPhrase(head: "full", places: [.word("disk"), .node], detail: "writes fail with ENOSPC") { ids, _, _ in .success([.disk(ids[0]!, .full)]) },
        FaultPhrase(head: "broken", places: [.word("disk"), .node], detail: "writes and fsyncs fail with EIO") { ids, _, _ in .success([.disk(ids[0]!, .broken)]) },
        FaultPhrase(head: "jump", places: [.word("clock"), .node, .figure(["+5s", "-30s"])], detail: "the clock leaps, once") { ids, figures, _ in
            let isBack = figures[0].first == "-"
            guard let value = FaultText.milliseconds(of: figures[0].filter { $0 != "+" && $0 != "-" }), value > 0, value <= 31_536_000_000 else { return .failure(Wrong(text: "a time with its sign, like +5s")) }
            return .success([.clock(ids[0]!, .jump(milliseconds: isBack ? -Int(value) : Int(value)))])
        },
        FaultPhrase(head: "drift", places: [.word("clock"), .node, .figure(["100ppm", "-500ppm"])], detail: "the clock runs too fast or slow") { ids, figures, _ in
            guard let value = Int(figures[0].filter { !$0.isLetter && $0 != "+" }), value != 0, (-500_000...500_000).contains(value) else { return .failure(Wrong(text: "parts per million, -500,000 to 500,000")) }
            return .success([.clock(ids[0]!, .drift(partsPerMillion: value))])
        },
    ]
}

extension Model {
    /// Names a node can be called by in a phrase.
    private func member(called word: String) -> UInt64? {
        switch word {
        case "leader": cluster.leader?.id
        case "follower": cluster.members.first { $0.role == .follower && $0.isUp }?.id
        default: cluster.members.first { $0.name == word }?.id
        }
    }

    private func nodeWords(_ place: FaultPhrase.Place) -> [String] {
        let all = if case .nodeOrAll = place { ["all"] } else { [String]() }
        return cluster.members.map(\.name) + ["leader", "follower"] + all
    }

    /// Items for a phrase that is being typed: done, or every way to go on; empty when `text` is none.
    func phraseItems(_ text: String) -> [PaletteItem] {
        guard cluster.kind == .playground, text.contains(" ") else { return [] }
        var words = text.split(separator: " ", omittingEmptySubsequences: true).map(String.init)
        guard let head = words.first else { return [] }
        if head == "heal" { return healItems(words.count > 1 ? words[1] : "") }
        if head == "scenario" { return scenarioItems(words.count > 1 ? words[1...].joined(separator: " ") : "") }
        guard let phrase = FaultPhrase.all.first(where: { $0.head == head }) else { return [] }
        // The last word is still being typed unless a blank follows it.
        let isOpen = text.last != " "
        words.removeFirst()
        var ids: [UInt64?] = [], figures: [String] = [], done = head
        func offers(_ list: [String], _ typed: String, more: Bool) -> [PaletteItem] {
            list.filter { typed.isEmpty || $0.hasPrefix(typed) }.map { word in
                let line = "\(done) \(word)"
                return PaletteItem(title: line, detail: phrase.detail, key: "", completion: more ? line + " " : line, obstacle: more ? "goes on" : nil, action: .phrase(line))
            }
        }
        for (index, place) in phrase.places.enumerated() {
            let more = index + 1 < phrase.places.count
            if case .groups = place {
                let typed = words.joined(separator: " ")
                if typed.isEmpty {
                    let names = cluster.members.map(\.name)
                    return names.indices.map { first in
                        let line = "\(head) \(names[first]) | \(names.indices.filter { $0 != first }.map { names[$0] }.joined(separator: " "))"
                        return PaletteItem(title: line, detail: phrase.detail, key: "B", completion: line, action: .phrase(line))
                    }
                }
                var rest = words
                var ending: [String] = []
                if let at = rest.lastIndex(of: "for") { ending = Array(rest[at...]); rest.removeSubrange(at...) }
                figures.append(rest.joined(separator: " "))
                words = ending
                break
            }
            let word = words.first ?? ""
            let isLast = words.count == 1 && isOpen
            switch place {
            case .node, .nodeOrAll:
                let isAll = word == "all" && { if case .nodeOrAll = place { true } else { false } }()
                guard let id = isAll ? .some(nil) : member(called: word).map(Optional.some), !(isLast && more) else { return offers(nodeWords(place), word, more: more) }
                ids.append(id)
            case .word(let wanted):
                guard word == wanted, !isLast else { return offers([wanted], word, more: more) }
            case .figure(let examples):
                guard !word.isEmpty else { return offers(examples, word, more: more) }
                figures.append(word)
            case .groups: break
            }
            words.removeFirst()
            done += " \(word)"
        }
        return [finished(phrase, ids, figures, words, text)]
    }

    /// A phrase with nothing missing: what it does, or what is wrong with it.
    private func finished(_ phrase: FaultPhrase, _ ids: [UInt64?], _ figures: [String], _ rest: [String], _ text: String) -> PaletteItem {
        var item = PaletteItem(title: text.trimmed, detail: phrase.detail, key: "", completion: text.trimmed, action: .phrase(text.trimmed))
        var milliseconds: Int64?
        if let first = rest.first {
            milliseconds = rest.count > 1 ? FaultText.milliseconds(of: rest[1...].joined()) : nil
            if first != "for" || milliseconds == nil {
                item.obstacle = "after that only an end time: for 30s"
                return item
            }
        }
        if ids.count == 2, ids[0] == ids[1], ids[0] != nil {
            item.obstacle = "a node has no link to itself"
            return item
        }
        switch phrase.make(ids, figures, cluster.members) {
        case .failure(let wrong): item.obstacle = wrong.text
        case .success(let list):
            item.detail = list.map(faultLine).joined(separator: ", ") + (milliseconds.map { " for \(FaultText.span($0))" } ?? "")
            item.obstacle = obstacle(to: list)
            item.action = .faults(list, milliseconds: milliseconds)
            item.key = FaultAct.allCases.first { $0.kinds.contains(list[0].kind) }.map { String($0.key) } ?? ""
        }
        return item
    }

    private func healItems(_ typed: String) -> [PaletteItem] {
        let off = obstacle(to: ChaosVerb.healAll)
        var items = [PaletteItem(title: "heal all", detail: faults.isEmpty ? "end every fault, start what is down" : "\(Format.plural(Int64(faults.count), "fault")) on", key: "H", completion: "heal all", obstacle: off, action: .heal(nil))]
        items += faults.map { fault in
            PaletteItem(title: "heal #\(fault.id)", detail: faultLine(fault.fault), key: "D", completion: "heal #\(fault.id)", obstacle: mode == .readOnly ? "read-only" : nil, action: .heal(fault.fault))
        }
        return items.filter { typed.isEmpty || $0.title.hasPrefix("heal \(typed)") }
    }

    private func scenarioItems(_ typed: String) -> [PaletteItem] {
        let found = scenarios.map { scenario in
            PaletteItem(title: "scenario \(scenario.name)", detail: scenario.title, key: "R", completion: "scenario \(scenario.name)",
                        obstacle: mode == .readOnly ? "read-only" : runningScenario.map { "\($0.name) runs: stop it first" } ?? scenario.obstacle, action: .scenario(scenario.name))
        }
        return typed.isEmpty ? found : found.filter { Fuzzy.score("scenario \(typed)", $0.title) != nil }
    }

    /// What the palette lists besides while nothing definite is typed: heads that can be gone on with.
    var faultItems: [PaletteItem] {
        guard cluster.kind == .playground else { return [] }
        let isOff = mode == .readOnly
        var items = cluster.members.flatMap { member in
            [("stop", Fault.stop(member.id), "S", "gently: leadership is handed over first")].map { word, fault, key, detail in
                PaletteItem(title: "\(word) \(member.name)", detail: detail, key: key, completion: "\(word) \(member.name)", obstacle: obstacle(to: fault), action: .faults([fault], milliseconds: nil))
            }
        }
        if let leader = cluster.leader {
            items.append(PaletteItem(title: "kill leader", detail: "\(leader.name) leads now", key: "K", completion: "kill leader", obstacle: obstacle(to: Fault.kill(leader.id)), action: .faults([.kill(leader.id)], milliseconds: nil)))
        }
        for phrase in FaultPhrase.all where !["kill", "stop", "pause", "isolate"].contains(phrase.head) {
            let words = phrase.places.map { place in
                switch place {
                case .node: "NODE"
                case .nodeOrAll: "NODE"
                case .word(let word): word
                case .figure(let examples): examples[0]
                case .groups: "A | B"
                }
            }
            let isWord = if case .word? = phrase.places.first { true } else { false }
            items.append(PaletteItem(title: ([phrase.head] + words).joined(separator: " "), detail: phrase.detail, key: "", completion: phrase.head + (isWord ? " \(words[0]) " : " "),
                                     obstacle: isOff ? "read-only" : "goes on", action: .phrase(phrase.head)))
        }
        items += healItems("") + scenarioItems("")
        if let running = runningScenario { items.append(PaletteItem(title: "stop scenario", detail: "\(running.title), step \(running.step) of \(running.steps)", key: "D", completion: "stop scenario", obstacle: isOff ? "read-only" : nil, action: .stopScenario)) }
        return items
    }
}
