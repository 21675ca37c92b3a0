@testable import UI

// What a person types in the palette and in forms, and the values that the console shows them.

extension FuzzTargets {
    static let terminal: [FuzzTarget] = [
        FuzzTarget(name: "fault-phrases", seeds: OrderImages.phraseSeeds, words: ["-9223372036854775808", "ppm", "drift clock n1 ", "jump clock n1 ", "partition n1 | ", " for 30s", "9999999999h", "nan", "all"], maxBytes: 256, run: OrderImages.type),
        FuzzTarget(name: "value-view", seeds: ValueImages.seeds, words: ["{\"a\":", "[", "\\u00", "\\\"", "1e", "true", "\t", "\u{e9}\u{301}", "e\u{301}\u{200d}"], run: ValueImages.show),
    ]
}

private enum ValueImages {
    static func seeds() -> [[UInt8]] {
        [#"{"a":[1,-2.5e+3,true,null,{"b":"\u00e9\n"}],"c":{}}"#, "[[[[[[]]]]]]", "plain text\twith\u{1b}[31m controls\u{e9}", "", "0a 1B ff", "line\r\nline\n\n"].map { Array($0.utf8) } + [[0xff, 0xfe, 0, 10, 13, 0xc3]]
    }

    static func show(_ raw: UnsafeRawBufferPointer) {
        let bytes = [UInt8](raw), text = String(decoding: raw, as: UTF8.self)
        for mode in [ValueMode.json, .text, .hex] { _ = ValueDocument(bytes, mode: mode, limit: 64 << 10) }
        _ = ValueDocument.isJSON(bytes)
        if let tokens = try? JSON.tokens(bytes) {
            // Laying out and joining again changes nothing but blanks.
            let formatted = try! JSON.formatted(bytes)
            precondition(try! JSON.tokens(Array(formatted.utf8)).count == tokens.count || String(validating: bytes, as: UTF8.self) == nil)
            let compact = try! JSON.compacted(Array(formatted.utf8), like: bytes)
            precondition((try? JSON.tokens(compact).count) == tokens.count || String(validating: bytes, as: UTF8.self) == nil, "\(formatted)")
        }
        if let parsed = HexText.parse(text) { precondition(HexText.parse(HexText.dump(parsed)) == parsed) }
        precondition(HexText.parse(HexText.dump(bytes)) == bytes)
        var editor = TextEditor(text)
        precondition(editor.text.utf8.elementsEqual(text.utf8), "a text does not survive the editor")
        for key in [KeyPress(.down), KeyPress(.end), KeyPress(.character("x")), KeyPress(.backspace), KeyPress(.up), KeyPress(.home), KeyPress(.delete)] { _ = editor.handle(key, pageRows: 10) }
        var field = TextField(text)
        for key in [KeyPress(.left), KeyPress(.character("x")), KeyPress(.home), KeyPress(.delete)] { _ = field.handle(key) }
    }
}


private enum OrderImages {
    static func phraseSeeds() -> [[UInt8]] {
        ["kill leader", "cut n1 n2 for 30s", "partition n1 n2 | n3 for 1m30s", "delay all n1 40ms", "lose n1 all 5%", "slow disk n2 20ms for 30s", "jump clock n1 -5s", "drift clock n1 -500ppm",
         "drift clock n1 -9223372036854775808ppm", "heal #1", "scenario x"].map { Array($0.utf8) }
    }

    static func type(_ raw: UnsafeRawBufferPointer) {
        let text = String(decoding: raw, as: UTF8.self)
        // A key may be typed with escapes.
        precondition(Model.unescaped(raw.map { "\\x" + Format.hexByte($0) }.joined()).elementsEqual(raw))
        _ = Model.unescaped(text)
        let screen = Screen()
        for item in screen.model.phraseItems(text) { _ = item.obstacle }
        // The same figures in the forms.
        for act in [FaultAct.flaky, .groups, .disk, .clock] {
            var form = FaultForm(act, members: screen.model.cluster.members, node: 0, peer: 1, support: FaultSupport())
            for index in form.fields.indices {
                if case .text = form.fields[index].input { form.fields[index].input = .text(TextField(text)) }
            }
            _ = try? form.faults(screen.model.cluster.members)
            if act == .clock, case .choice(let list, _)? = form[.what]?.input {
                form.fields[1].input = .choice(list, 1)
                _ = try? form.faults(screen.model.cluster.members)
            }
        }
    }
}

/// A console without a terminal: hears, and draws every view.
struct Screen {
    private(set) var model: Model
    private(set) var now = Moment(milliseconds: 1_763_923_327_000)

    init(_ kind: ClusterState.Kind = .playground) {
        var state = ClusterState(name: "fuzz", kind: kind, connection: .connected, members: (1...3 as ClosedRange<UInt64>).map { id in
            var member = MemberState(id: id, name: "n\(id)", endpoint: "127.0.0.1:\(id)2379", role: id == 1 ? .leader : .follower, health: .up)
            member.term = 3
            return member
        })
        state.revision = 9
        model = Model(size: Size(columns: 100, rows: 30), now: now, cluster: state, glyphs: .unicode, isReadOnly: false)
        tell(.cluster(state))
    }

    mutating func tell(_ event: DataEvent) { _ = update(&model, .data(event), at: now) }
    mutating func press(_ key: KeyPress) { perform(.key(key)) }
    mutating func perform(_ action: Action) { _ = update(&model, action, at: now) }

    static let viewKeys: [Character] = ["1", "2", "3", "4", "5", "7", "9", "0"]

    /// Two views, and the time goes on.
    /// - Parameter choice: which.
    mutating func look(_ choice: Int) {
        for place in [choice, choice / Screen.viewKeys.count] {
            press(KeyPress(.character(Screen.viewKeys[place % Screen.viewKeys.count])))
            _ = view(model)
        }
        now = max(now, model.now).advanced(byMilliseconds: 1_000)
        _ = update(&model, .tick, at: now)
        _ = view(model)
    }
}

