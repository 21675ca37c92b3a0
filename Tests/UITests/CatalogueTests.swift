import Testing
@testable import UI

@Suite struct CatalogueTests {
    static let stacks: [[Context]] = [[.overview, .everywhere], [.tree, .keys, .everywhere], [.value, .keys, .everywhere], [.history, .keys, .everywhere],
                                      [.watchList, .watch, .everywhere], [.stream, .watch, .everywhere], [.elections, .everywhere], [.latency, .everywhere], [.editor]]

    @Test(arguments: stacks)
    func noKeyMeansTwoThings(stack: [Context]) {
        var owners: [KeyPress: String] = [:]
        for entry in Catalogue.entries(in: stack) {
            for key in entry.keys {
                // F keys and letters may be shadowed nowhere: a hint must always be true.
                #expect(owners[key] == nil, "\(key.label) is \(owners[key] ?? "") and \(entry.name) in \(stack)")
                owners[key] = entry.name
            }
        }
    }

    /// `G` and `N` are vi's, and only move.
    @Test func capitalsChangeTheClusterAndNothingElseDoes() {
        for entry in Catalogue.entries {
            for key in entry.keys {
                guard case .character(let character) = key.code else { continue }
                if character.isUppercase, key.modifiers.isEmpty, character != "G", character != "N" { #expect(entry.changes, "\(entry.name) on \(character)") }
                if entry.changes { #expect(character.isUppercase || entry.verb == .editorSave, "\(entry.name) changes the cluster on \(key.label)") }
            }
        }
    }

    @Test func aVerbHasTheSameKeyEverywhere() {
        var keys: [String: [KeyPress]] = [:]
        for entry in Catalogue.entries {
            if let known = keys[entry.name] { #expect(known == entry.keys, "\(entry.name)") }
            keys[entry.name] = entry.keys
        }
    }

    @Test func everyActionIsInHelpOfItsPlaceAndInThePalette() {
        for stack in Self.stacks {
            var session = Session(Size(columns: 120, rows: 36))
            switch stack[0] {
            case .tree: session.press(KeyPress("2"))
            case .value: session.press(KeyPress("2"), KeyPress(.tab))
            case .history: session.press(KeyPress("2"), KeyPress(.tab), KeyPress(.tab))
            case .watchList: session.press(KeyPress("3"))
            case .stream: session.press(KeyPress("3"), KeyPress(.tab))
            case .elections: session.press(KeyPress("4"))
            case .latency: session.press(KeyPress("5"))
            case .editor: session.model.screen = .keys; session.model.openEditor(EditorState(key: KeyBytes("k"), base: nil))
            default: break
            }
            #expect(session.model.contexts == stack)
            let help = session.model.helpLines(filter: "")
            for entry in Catalogue.entries(in: stack) where entry.section != .move {
                #expect(help.contains { $0.text == entry.help }, "\(entry.name) is not in help of \(stack)")
            }
        }
        let palette = Set(Session().model.paletteItems("").map(\.title))
        for entry in Catalogue.entries where entry.context != .editor && entry.section != .move && entry.verb != .palette && entry.verb != .goBack {
            #expect(palette.contains(entry.name), "\(entry.name)")
        }
        for view in ViewID.allCases { #expect(palette.contains("view-\(view.title.lowercased())")) }
    }

    @Test func aGreyedKeySaysWhy() {
        var session = Session(kind: .attached)
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress("K"))
        #expect(session.screen.contains("only nodes that this console started can be stopped or cut off"))
        session.press(KeyPress("6"))
        #expect(session.screen.contains("Members is not in this version"))
        #expect(session.model.screen == .overview)
        session.press(KeyPress("2"), KeyPress("U"))
        #expect(session.screen.contains("nothing to undo"))
        session.press(KeyPress("§"))
        #expect(session.screen.contains("§ does nothing here · ? shows all keys"))
    }

    @Test func paletteFindsByPartsAndRunsWhatItShows() {
        var session = Session()
        session.tell(.cluster(session.model.cluster))
        session.press(KeyPress(":"))
        session.type("kn2")
        #expect(session.model.paletteItems("kn2").first?.title == "kill n2")
        session.press(.enter)
        #expect(session.commands.contains { if case .addFault(_, .kill(0xfd42_2379_fda5_0e48), _) = $0 { true } else { false } })
        session.press(.control("p"))
        session.type("theme")
        session.press(.enter)
        #expect(session.commands.last == .useTheme("quarterdeck-dark"))
        session.press(KeyPress(":"))
        session.type("watch /app/")
        session.press(.enter)
        #expect(session.model.screen == .watch && session.model.watch.selected?.target == .prefix(KeyBytes("/app/")))
        #expect(session.model.paletteItems("zzzzqq").isEmpty)
    }

    @Test func escNeverDropsTypedTextWithoutAsking() {
        var session = Session()
        session.press(KeyPress("2"))
        session.wait()
        session.press(KeyPress("A"))
        session.type("new\n")
        #expect(session.model.keys.editor?.key == KeyBytes("/new") || session.model.keys.editor?.key == KeyBytes("new"))
        session.type("text")
        session.press(.escape)
        #expect(session.model.keys.editor != nil)
        #expect(session.screen.contains("Drop this edit?"))
        session.press(.escape)
        #expect(session.model.keys.editor?.text.text == "text")
        session.press(KeyPress(.escape), KeyPress("y"))
        #expect(session.model.keys.editor == nil)
    }
}
